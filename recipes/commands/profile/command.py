"""What `nas profile` finds, as plain JSON types in the shape of optimum-benchmark's reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espalier.export.comparison import compare
from espalier.export.devices.base import Device, MeasureSpec
from espalier.export.end_to_end import image_files, measure_end_to_end
from espalier.export.load import check_load, measure_load
from espalier.export.operators import profile_operators
from espalier.export.timing import percentile
from espalier.nas.errors import UserError
from espalier.nas.files import write_json, write_text
from espalier.nas.measurement import Measurement


@dataclass(frozen=True)
class Extras:
    """What is looked at besides the latency.

    Attributes:
        operators: the time by operator, module and kernel.
        depth: see `profile_operators`.
        end_to_end: an image, or a folder of them.
        callers: numbers of callers at once.
        batches: for each of these.
    """

    operators: bool = False
    depth: int = 2
    end_to_end: Path | None = None
    callers: Sequence[int] | None = None
    batches: Sequence[int] = (1,)


def profile_file(device: Device, onnx_file: Path, spec: MeasureSpec, extras: Extras) -> dict[str, Any]:
    """Time one file, and look at what else is asked for; what is wrong with the request is told before any timing.

    Raises:
        UserError: the file cannot be read or run, there are no images, or no callers.
    """
    if extras.depth < 1:
        raise UserError("--depth", f"is {extras.depth}, must be at least 1")
    if extras.end_to_end is not None:
        image_files(extras.end_to_end)
    if extras.callers is not None:
        check_load(extras.callers, extras.batches)
    measurement = device.measure(onnx_file, spec)
    result = as_report(str(onnx_file), measurement)
    if extras.end_to_end is not None:
        result["end_to_end"] = measure_end_to_end(device, onnx_file, extras.end_to_end, spec).to_dict()
    if extras.callers is not None:
        loads = measure_load(device, onnx_file, spec, callers=extras.callers, batches=extras.batches)
        result["concurrency"] = [load.to_dict() for load in loads]
    if extras.operators:
        found = profile_operators(device, onnx_file, measurement, spec, depth=extras.depth)
        result["operators"] = found.to_dict()
    return result


def compare_files(device: Device, onnx_files: Sequence[Path], spec: MeasureSpec) -> dict[str, Any]:
    """Time files in turns; `comparison` holds the ratio of each further one to the first, with its interval.

    Raises:
        UserError: see `espalier.export.comparison.compare`.
    """
    found = compare(device, onnx_files, spec)
    return {
        "files": [
            as_report(found.baseline, found.measurement),
            *(as_report(other.file, other.measurement) for other in found.others),
        ],
        "comparison": [
            {
                "file": other.file,
                "baseline": found.baseline,
                "ratio": other.ratio,
                "ci95": list(other.ci95),
                "ratios": list(other.ratios),
                "faster": other.faster,
            }
            for other in found.others
        ],
    }


def as_report(file: str, measurement: Measurement) -> dict[str, Any]:
    """A measurement with what follows from it; what nothing has counted is None.

    `load` is making the session, `first_run` its first run: the cold start, which no timed run contains.
    """
    environment = dict(measurement.environment)
    joules = environment.get("energy_j_per_run")
    return {
        "file": file,
        **measurement.to_dict(),
        "throughput": {"unit": "samples/s", "value": 1000 * environment["batch"] / measurement.latency.mean},
        "load": {"latency": _spread(environment["load_ms"])},
        "first_run": {"latency": _spread(environment["cold_start_ms"])},
        "energy": None if joules is None else {"unit": "J/run", "value": joules, "of": environment["energy_source"]},
    }


def write_profile(result: dict[str, Any], folder: Path) -> list[Path]:
    """`profile.json` and `profile.html` in the folder. Returns their paths."""
    from espalier.recipes.commands.profile.page import profile_page

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "profile.json", result)
    write_text(folder / "profile.html", profile_page(result))
    return [folder / "profile.json", folder / "profile.html"]


def _spread(values_ms: Sequence[float]) -> dict[str, Any]:
    """Of one value for each session, in the shape of a latency."""
    values = np.asarray(values_ms)
    return {
        "unit": "ms",
        "count": values.size,
        "mean": float(values.mean()),
        "stdev": float(values.std(ddof=1)),
        "p50": float(np.median(values)),
        **{f"p{percent}": percentile(values, percent) for percent in (90, 95, 99)},
        "values": values.tolist(),
    }
