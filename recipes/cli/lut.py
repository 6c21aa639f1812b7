"""The commands of `nas lut`. Heavy imports happen inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from espalier.nas.errors import UserError
from espalier.recipes.cli.options import AsJson, Threads, answer

lut_app = typer.Typer(help="Tables of what the blocks of a space cost on a device.", no_args_is_help=True)

Space = Annotated[str | None, typer.Option(help="NAME or NAME:key=value,... (see nas ls), in the place of a recipe.")]
ImageSize = Annotated[int | None, typer.Option(help="Height and width of an image, with --space [32].")]
Channels = Annotated[int | None, typer.Option(help="Channels of an image, with --space [3].")]
Classes = Annotated[int | None, typer.Option(help="Outputs of the networks, with --space [10].")]
Where = Annotated[str, typer.Option("--device", help="Address of the device (see nas ls).")]
FROM_PROFILE = "[as the recipe's profile says"


@lut_app.command("build")
def lut_build(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file, or the name of one that ships (see nas ls).")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as space.width=0.5.")] = None,
    space: Space = None,
    image_size: ImageSize = None,
    channels: Channels = None,
    classes: Classes = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The table to write; a killed measurement goes on.")
    ] = None,
    device: Annotated[str | None, typer.Option(help=f"Address of the device {FROM_PROFILE}, or local].")] = None,
    threads: Annotated[int | None, typer.Option(help=f"Threads of the runtime {FROM_PROFILE}].")] = None,
    batch: Annotated[int | None, typer.Option(help=f"Images in one run {FROM_PROFILE}, or 1].")] = None,
    sessions: Annotated[int, typer.Option(help="Fresh sessions for each block, best an even number.")] = 4,
    seconds: Annotated[float, typer.Option(help="Time budget of the timed runs of each block.")] = 0.2,
    list_blocks: Annotated[bool, typer.Option("--list", help="Print the blocks to measure; measure nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure every block of a space on a device: searches add the latencies up, as the cost of their strategies."""
    from espalier.export.devices.base import MeasureSpec
    from espalier.recipes.cli.console import track, waiting
    from espalier.recipes.commands.lut.command import blocks_text, build_table, listed_blocks, table_summary
    from espalier.recipes.commands.lut.space_source import given_space

    given = given_space(recipe, overrides or [], space=space, image_size=image_size, channels=channels, classes=classes)
    if list_blocks:
        with waiting("cutting networks into blocks"):
            blocks = listed_blocks(given)
        answer(blocks if as_json else blocks_text(blocks), as_json)
        return
    if output is None:
        raise UserError("--output", "is missing: the file of the table")
    profile = given.profile
    spec = MeasureSpec(
        threads=profile.threads if threads is None else threads,
        batch=profile.batch if batch is None else batch,
        provider=profile.provider,
        sessions=sessions,
        seconds=seconds,
        min_runs=5,
    )
    table = build_table(given, output, device=device or profile.device, spec=spec, track=track)
    answer(table_summary(table, given, output), as_json)


@lut_app.command("check")
def lut_check(
    table: Annotated[Path, typer.Argument(help="A table that nas lut build wrote.")],
    space: Space = None,
    image_size: ImageSize = None,
    channels: Channels = None,
    classes: Classes = None,
    device: Where = "local",
    threads: Threads = None,
    batch: Annotated[int | None, typer.Option(help="Images in one run [as the table].")] = None,
    networks: Annotated[int, typer.Option("-n", "--networks", help="Random networks to judge the table by.")] = 30,
    calibrate: Annotated[int, typer.Option(help="Further random networks to calibrate it by.")] = 20,
    seconds: Annotated[float, typer.Option(help="Time budget of the timed runs of each network.")] = 0.6,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the calibrated table there.")] = None,
    any_device: Annotated[bool, typer.Option("--any-device", help="Also a table of another device.")] = False,
    as_json: AsJson = False,
) -> None:
    """How far a table's sums are from random networks measured whole, as it is and calibrated."""
    from espalier.recipes.cli.console import announce, track
    from espalier.recipes.commands.lut.command import check_file, check_text

    found = check_file(
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
        track=track,
    )
    if output is not None:
        found.calibrated.write(output)
        announce(f"wrote {output}")
    answer(found.to_dict() if as_json else check_text(found), as_json)
