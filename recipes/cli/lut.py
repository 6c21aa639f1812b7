"""The commands `nas lut build` and `nas lut check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from espalier.recipes.cli.options import AsJson, Command, Device, Threads, output_file, print_result, required_output
from espalier.recipes.commands import defaults

lut_app = typer.Typer(help="Tables of the latency of a space's blocks on a device.", no_args_is_help=True)

Space = Annotated[str | None, typer.Option(help="NAME or NAME:key=value,... (see nas ls), instead of a recipe.")]
ImageSize = Annotated[
    int | None, typer.Option(help=f"Height and width of an image, with --space [{defaults.IMAGE_SIZE}].")
]
Channels = Annotated[int | None, typer.Option(help=f"Channels of an image, with --space [{defaults.CHANNELS}].")]
Classes = Annotated[int | None, typer.Option(help=f"Outputs of the networks, with --space [{defaults.CLASSES}].")]
FROM_PROFILE = "[as in the recipe's profile"


@lut_app.command("build", cls=Command)
def lut_build(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file, or the name of a shipped one (see nas ls).")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as space.width=0.5.")] = None,
    space: Space = None,
    image_size: ImageSize = None,
    channels: Channels = None,
    classes: Classes = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", callback=output_file, help="The table to write; a killed measurement is resumed."
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help=f"Device to measure on {FROM_PROFILE}, or {defaults.DEVICE}].")
    ] = None,
    threads: Annotated[int | None, typer.Option(help=f"Threads of ONNX Runtime {FROM_PROFILE}].")] = None,
    batch: Annotated[int | None, typer.Option(help=f"Images in one run {FROM_PROFILE}, or {defaults.BATCH}].")] = None,
    sessions: Annotated[
        int, typer.Option(help="Fresh sessions for each block, preferably an even number.")
    ] = defaults.BLOCK_SESSIONS,
    seconds: Annotated[
        float, typer.Option(help="Time budget of the timed runs of each block.")
    ] = defaults.BLOCK_SECONDS,
    list_blocks: Annotated[bool, typer.Option("--list", help="Print the blocks to measure; measure nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure every block of a space on a device: a search estimates the latency of a network by their sum."""
    from espalier.recipes.commands.lut.command import build_table, listed_blocks
    from espalier.recipes.commands.lut.space_source import given_space
    from espalier.recipes.commands.lut.text import blocks_text, table_summary
    from espalier.recipes.commands.progress import waiting

    given = given_space(recipe, overrides or [], space=space, image_size=image_size, channels=channels, classes=classes)
    if list_blocks:
        with waiting("splitting networks into blocks"):
            blocks = listed_blocks(given)
        print_result([block.to_dict() for block in blocks] if as_json else blocks_text(blocks), as_json)
        return
    file = required_output(output, "the file of the table")
    table = build_table(given, file, device=device, threads=threads, batch=batch, sessions=sessions, seconds=seconds)
    print_result(table_summary(table, given.space, file), as_json)


@lut_app.command("check", cls=Command)
def lut_check(
    table: Annotated[Path, typer.Argument(help="A table that nas lut build wrote.")],
    space: Space = None,
    image_size: ImageSize = None,
    channels: Channels = None,
    classes: Classes = None,
    device: Device = defaults.DEVICE,
    threads: Threads = None,
    batch: Annotated[int | None, typer.Option(help="Images in one run [as in the table].")] = None,
    networks: Annotated[
        int, typer.Option("-n", "--networks", help="Random networks to test the table on.")
    ] = defaults.CHECK_NETWORKS,
    calibrate: Annotated[
        int, typer.Option(help="Further random networks to calibrate it with.")
    ] = defaults.CALIBRATION_NETWORKS,
    seconds: Annotated[
        float, typer.Option(help="Time budget of the timed runs of each network.")
    ] = defaults.CHECK_SECONDS,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", callback=output_file, help="Write the calibrated table here.")
    ] = None,
    any_device: Annotated[bool, typer.Option("--any-device", help="Also accept a table of another device.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare a table with random networks measured end to end, as built and calibrated."""
    from espalier.recipes.commands.lut.command import check_latency_table
    from espalier.recipes.commands.lut.text import check_text
    from espalier.recipes.commands.progress import announce

    found = check_latency_table(
        table,
        space=space,
        image_size=image_size,
        channels=channels,
        classes=classes,
        device=device,
        threads=threads,
        batch=batch,
        networks=networks,
        calibrate=calibrate,
        seconds=seconds,
        any_device=any_device,
    )
    if output is not None:
        found.calibrated.write(output)
        announce(f"wrote {output}")
    print_result(found.to_dict() if as_json else check_text(found), as_json)
