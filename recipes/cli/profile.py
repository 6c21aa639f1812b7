"""The command `nas profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from espalier.recipes.cli.options import AsJson, Threads, answer, refuse, whole_numbers


def profile(
    files: Annotated[
        list[Path], typer.Argument(help="ONNX files; several are timed in turns, each against the first.")
    ],
    threads: Threads = None,
    provider: Annotated[
        str | None, typer.Option(help="ONNX Runtime's execution provider, such as cuda [cuda if there, else cpu].")
    ] = None,
    batch: Annotated[
        str, typer.Option(help="Images in one run; several, joined by commas, give a table of throughput.")
    ] = "1",
    device: Annotated[str, typer.Option(help="Where to run (see nas ls).")] = "local",
    sessions: Annotated[int, typer.Option(help="Fresh sessions of the runtime, each in a process of its own.")] = 10,
    seconds: Annotated[float, typer.Option(help="Time budget of the timed runs.")] = 2.0,
    operators: Annotated[
        bool, typer.Option("--operators", help="Also the time by operator, source module and kernel, in a second pass.")
    ] = False,
    depth: Annotated[int, typer.Option(help="Levels of module names to group by: 2 puts a.b.c into a.b.")] = 2,
    end_to_end: Annotated[
        Path | None, typer.Option(help="Image or folder: also time decoding, resizing, normalisation and copies.")
    ] = None,
    concurrency: Annotated[
        str | None, typer.Option(help="Numbers of callers at once, joined by commas: a table of throughput.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for profile.json and profile.html.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time ONNX files: percentiles, an interval and a verdict on how far to trust them, and where the time goes."""
    from espalier.export.devices.address import open_device
    from espalier.export.devices.base import MeasureSpec
    from espalier.recipes.cli.console import announce, waiting
    from espalier.recipes.commands.profile.command import Extras, compare_files, profile_file, write_profile
    from espalier.recipes.commands.profile.text import comparison_text, profile_text

    batches = whole_numbers("--batch", batch)
    callers = None if concurrency is None else whole_numbers("--concurrency", concurrency)
    target = open_device(device, where="--device")
    spec = MeasureSpec(
        threads=threads,
        provider=provider,
        batch=batches[0],
        sessions=sessions,
        seconds=seconds,
        fresh_processes=True,
    )
    if len(files) > 1:
        several = {"--operators": operators or None, "--end-to-end": end_to_end, "--concurrency": concurrency}
        refuse({**several, "--output": output, "--batch": batch if len(batches) > 1 else None}, "takes one ONNX file")
        with waiting(f"timing {len(files)} files in turns, {sessions} rounds"):
            comparison = compare_files(target, files, spec)
        answer(comparison if as_json else comparison_text(comparison), as_json)
        return
    if callers is None and len(batches) > 1:
        callers = [1]
    extras = Extras(operators=operators, depth=depth, end_to_end=end_to_end, callers=callers, batches=batches)
    with waiting(f"timing {files[0]} in {sessions} sessions"):
        result = profile_file(target, files[0], spec, extras)
    if output is not None:
        for path in write_profile(result, output):
            announce(f"wrote {path}")
    answer(result if as_json else profile_text(result), as_json)
