"""The command `nas profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from espalier.recipes.cli.options import AsJson, Device, Dim, Threads, output_folder, print_result, whole_numbers
from espalier.recipes.commands import defaults


def profile(
    files: Annotated[
        list[Path], typer.Argument(help="ONNX files; several are timed in turns, each against the first.")
    ],
    threads: Threads = None,
    provider: Annotated[
        str | None,
        typer.Option(help="ONNX Runtime's execution provider, such as cuda [cuda if there is a GPU, else cpu]."),
    ] = None,
    batch: Annotated[
        str, typer.Option(help="Images in one run; several, separated by commas, give a table of throughput.")
    ] = str(defaults.BATCH),
    dim: Dim = None,
    device: Device = defaults.DEVICE,
    sessions: Annotated[
        int, typer.Option(help="Fresh sessions of the runtime, each in its own process.")
    ] = defaults.PROFILE_SESSIONS,
    seconds: Annotated[float, typer.Option(help="Time budget of the timed runs.")] = defaults.PROFILE_SECONDS,
    operators: Annotated[
        bool, typer.Option("--operators", help="Also the time by operator, source module and kernel, in a second pass.")
    ] = False,
    depth: Annotated[
        int, typer.Option(help="Levels of module names to group by: 2 puts a.b.c into a.b.")
    ] = defaults.DEPTH,
    end_to_end: Annotated[
        Path | None, typer.Option(help="Image or folder: also time decoding, resizing, normalisation and copies.")
    ] = None,
    concurrency: Annotated[
        str | None, typer.Option(help="Numbers of simultaneous callers, separated by commas: a table of throughput.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", callback=output_folder, help="Folder for profile.json and profile.html."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time ONNX files: percentiles, an interval, a verdict on how far to trust them, and where the time goes."""
    from espalier.export.graph_inputs import parse_dims
    from espalier.recipes.commands.arguments import reject
    from espalier.recipes.commands.profile import command
    from espalier.recipes.commands.profile.text import comparison_text, profile_text

    dims = parse_dims(dim or ())
    batches = whole_numbers("batch", batch)
    callers = None if concurrency is None else whole_numbers("concurrency", concurrency)
    if len(files) > 1:
        of_one = {"operators": operators or None, "end_to_end": end_to_end, "concurrency": concurrency}
        reject({**of_one, "output": output, "batch": batch if len(batches) > 1 else None}, "needs a single ONNX file")
        comparison = command.compare(
            files,
            device=device,
            threads=threads,
            provider=provider,
            batch=batches[0],
            dims=dims,
            sessions=sessions,
            seconds=seconds,
        )
        print_result(comparison.to_dict() if as_json else comparison_text(comparison), as_json)
        return
    found = command.profile(
        files[0],
        device=device,
        threads=threads,
        provider=provider,
        batch=batches,
        dims=dims,
        sessions=sessions,
        seconds=seconds,
        operators=operators,
        depth=depth,
        end_to_end=end_to_end,
        concurrency=callers,
        output=output,
    )
    print_result(found.to_dict() if as_json else profile_text(found), as_json)
