"""Which of several ONNX files is faster on a device: ratios of interleaved runs, with an interval over rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espalier.export.devices.base import Device, MeasureSpec
from espalier.nas.errors import UserError
from espalier.nas.intervals import median_interval
from espalier.nas.measurement import Measurement

MIN_ROUNDS = 5
"""With five rounds the interval reaches from the lowest to the highest ratio, and two equal files have all five on one
side of 1 in 2 of 32 comparisons; with four it is 2 of 16, which is no evidence."""


@dataclass(frozen=True)
class Timed:
    """One file of a comparison.

    Attributes:
        file: its path, as given.
        measurement: its own times and their verdict. They differ from those of the file alone: the sessions push each
            other's weights out of the caches.
        ratios: for each round, its median run time divided by that of the first file; below 1 it is faster.
        ratio: the median of the ratios.
        ci95: its 95 % bootstrap interval, rounds resampled.
        faster: whether it is faster than the first file; None if the interval contains 1, so that this is not known.
    """

    file: str
    measurement: Measurement
    ratios: tuple[float, ...]
    ratio: float
    ci95: tuple[float, float]
    faster: bool | None


@dataclass(frozen=True)
class Comparison:
    """Files timed in the same rounds, each compared with the first.

    Attributes:
        baseline: path of the first file.
        measurement: its own times.
        others: the other files, in order.
    """

    baseline: str
    measurement: Measurement
    others: tuple[Timed, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, by the names of the attributes."""
        return asdict(self)


def compare(device: Device, onnx_files: Sequence[Path], spec: MeasureSpec) -> Comparison:
    """Time two or more files with interleaved runs and determine for each whether it is faster than the first.

    Two consecutive measurements differ by whatever the machine did in between; the ratio of two medians of the same
    round does not. Rounds, not runs, count as independent: the runs of one round share memory layout and thread
    placement.

    Args:
        device: runs the files.
        onnx_files: the baseline and the files to compare with it.
        spec: `sessions` is the number of rounds, `seconds` the time for each file.

    Raises:
        UserError: fewer than two files, fewer than `MIN_ROUNDS` rounds, or a file that cannot be run (see `measure`).
    """
    if len(onnx_files) < 2:
        raise UserError("onnx_files", f"has {len(onnx_files)}, a comparison takes two or more", code="too_few")
    if spec.sessions < MIN_ROUNDS:
        problem = f"is {spec.sessions}, a comparison takes {MIN_ROUNDS} rounds or more"
        raise UserError("sessions", problem, code="out_of_range")
    baseline, *others = device.measure_together(onnx_files, spec)
    medians = _round_medians(baseline)
    return Comparison(
        baseline=str(onnx_files[0]),
        measurement=baseline,
        others=tuple(
            _timed(str(path), measurement, _round_medians(measurement) / medians)
            for path, measurement in zip(onnx_files[1:], others, strict=True)
        ),
    )


def _round_medians(measurement: Measurement) -> np.ndarray:
    """Median run time of each round in milliseconds, shape `(rounds,)`."""
    runs = np.asarray(measurement.latency.values).reshape(-1, measurement.environment["runs_per_session"])
    medians: np.ndarray = np.median(runs, axis=1)
    return medians


def _timed(file: str, measurement: Measurement, ratios: np.ndarray) -> Timed:
    low, high = median_interval(ratios)
    return Timed(
        file=file,
        measurement=measurement,
        ratios=tuple(ratios.tolist()),
        ratio=float(np.median(ratios)),
        ci95=(low, high),
        faster=None if low <= 1 <= high else high < 1,
    )
