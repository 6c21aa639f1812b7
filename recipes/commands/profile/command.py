"""`profile` one ONNX file, or `compare` several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from espalier.export.comparison import compare as compare_on
from espalier.export.devices.base import MeasureSpec
from espalier.export.end_to_end import image_files, measure_end_to_end
from espalier.export.graph_inputs import check_dims
from espalier.export.load import check_load, measure_load
from espalier.export.operators import profile_operators
from espalier.nas.errors import UserError
from espalier.nas.files import write_json, write_text
from espalier.recipes.commands import defaults
from espalier.recipes.commands.profile.results import FileComparison, Profile
from espalier.recipes.commands.progress import announce, waiting
from espalier.recipes.config.devices import open_device


def profile(
    file: str | Path,
    *,
    device: str = defaults.DEVICE,
    threads: int | None = None,
    provider: str | None = None,
    batch: int | Sequence[int] = defaults.BATCH,
    dims: Mapping[str, int] | None = None,
    sessions: int = defaults.PROFILE_SESSIONS,
    seconds: float = defaults.PROFILE_SECONDS,
    operators: bool = False,
    depth: int = defaults.DEPTH,
    end_to_end: str | Path | None = None,
    concurrency: int | Sequence[int] | None = None,
    output: str | Path | None = None,
) -> Profile:
    """Time an ONNX file on a device: percentiles, an interval, a verdict on how far to trust them, and more if asked.

    Args:
        file: the ONNX file.
        device: where to run it: `local`, `ssh://HOST`, `adb://SERIAL` or `replay:FILE`.
        threads: of ONNX Runtime; None takes one per physical core.
        provider: ONNX Runtime's execution provider, such as `cuda`; None takes CUDA if there is one, else the CPU.
        batch: images in one run; several numbers give a table of throughput.
        dims: sizes of the inputs' open dimensions besides the batch, such as `{"sequence": 128}`.
        sessions: fresh sessions of the runtime, each in a process of its own.
        seconds: time budget of the timed runs.
        operators: also the time by operator, source module and kernel, in a second pass.
        depth: levels of module names to group by: 2 puts `a.b.c` into `a.b`.
        end_to_end: an image or a folder of images: also time decoding, resizing, normalisation and copies.
        concurrency: numbers of simultaneous callers, for a table of throughput.
        output: a folder for `profile.json` and `profile.html`.

    Raises:
        UserError: the file cannot be read or run, or an argument cannot be used; nothing is timed before that.
    """
    batches, callers = _several(batch), None if concurrency is None else _several(concurrency)
    if depth < 1:
        raise UserError("depth", f"is {depth}, must be at least 1", code="out_of_range")
    target = open_device(device, where="device")
    check_dims([Path(file)], dims or {})
    spec = _spec(threads=threads, provider=provider, batch=batches[0], dims=dims, sessions=sessions, seconds=seconds)
    if callers is None and len(batches) > 1:
        callers = [1]
    if end_to_end is not None:
        image_files(Path(end_to_end))
    if callers is not None:
        check_load(callers, batches)
    with waiting(f"timing {file} in {sessions} sessions"):
        measurement = target.measure(Path(file), spec)
        found = Profile(str(file), measurement)
        if end_to_end is not None:
            found = replace(found, end_to_end=measure_end_to_end(target, Path(file), Path(end_to_end), spec))
        if callers is not None:
            loads = measure_load(target, Path(file), spec, callers=callers, batches=batches)
            found = replace(found, concurrency=loads)
        if operators:
            found = replace(found, operators=profile_operators(target, Path(file), measurement, spec, depth=depth))
    if output is not None:
        for path in write_profile(found, Path(output)):
            announce(f"wrote {path}")
    return found


def compare(
    files: Sequence[str | Path],
    *,
    device: str = defaults.DEVICE,
    threads: int | None = None,
    provider: str | None = None,
    batch: int = defaults.BATCH,
    dims: Mapping[str, int] | None = None,
    sessions: int = defaults.PROFILE_SESSIONS,
    seconds: float = defaults.PROFILE_SECONDS,
) -> FileComparison:
    """Time ONNX files in turns, each against the first: the ratio of two times in the same round cancels drift.

    Args:
        files: two or more ONNX files.
        device: where to run them: `local`, `ssh://HOST`, `adb://SERIAL` or `replay:FILE`.
        threads: of ONNX Runtime; None takes one per physical core.
        provider: ONNX Runtime's execution provider, such as `cuda`; None takes CUDA if there is one, else the CPU.
        batch: images in one run.
        dims: sizes of the inputs' open dimensions besides the batch, such as `{"sequence": 128}`.
        sessions: rounds, each in fresh processes.
        seconds: time budget of the timed runs of each file.

    Raises:
        UserError: a file cannot be read or run, or there are too few files or rounds.
    """
    target = open_device(device, where="device")
    check_dims([Path(file) for file in files], dims or {})
    spec = _spec(threads=threads, provider=provider, batch=batch, dims=dims, sessions=sessions, seconds=seconds)
    with waiting(f"timing {len(files)} files in turns, {sessions} rounds"):
        return FileComparison(compare_on(target, [Path(file) for file in files], spec))


def write_profile(found: Profile, folder: Path) -> list[Path]:
    """Write `profile.json` and `profile.html` into the folder. Returns their paths."""
    from espalier.recipes.commands.profile.page import profile_page

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "profile.json", found.to_dict())
    write_text(folder / "profile.html", profile_page(found))
    return [folder / "profile.json", folder / "profile.html"]


def _spec(
    *,
    threads: int | None,
    provider: str | None,
    batch: int,
    dims: Mapping[str, int] | None,
    sessions: int,
    seconds: float,
) -> MeasureSpec:
    return MeasureSpec(
        threads=threads,
        provider=provider,
        batch=batch,
        dims=dims or {},
        sessions=sessions,
        seconds=seconds,
        fresh_processes=True,
    )


def _several(numbers: int | Sequence[int]) -> Sequence[int]:
    return [numbers] if isinstance(numbers, int) else numbers
