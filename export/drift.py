"""Correct for drift when many files are timed one after the other, by a reference network.

A processor that heats up, or whose clock changes, is slower for the last candidate than for the first. The reference is
timed before, in the middle and after; its slowdown is divided out of the candidates' times.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from espalier.export.devices.base import Device, MeasureSpec
from espalier.export.reference import write_reference
from espalier.nas.errors import UserError
from espalier.nas.measurement import Latency, Measurement, Verdict
from espalier.nas.progress import Track, silent

MAX_SLOWDOWN = 0.10
"""Slowdown of the reference since its first timing. Beyond it the device is throttling, and interpolation a guess."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Probe:
    """One timing of the reference.

    Attributes:
        at_s: the middle of the timing, on the clock of the batch.
        ms: its median.
        ci95: its 95 % interval.
    """

    at_s: float
    ms: float
    ci95: tuple[float, float]


@dataclass
class Drift:
    """The change in the device's speed since the first probe.

        factor(t) = r(t) / r(first), r interpolated linearly between the probes

    Attributes:
        probes: in order of time.
    """

    probes: list[Probe] = field(default_factory=list)

    @property
    def is_known(self) -> bool:
        """Whether the intervals of any two probes are disjoint. If none are, a correction would only add noise."""
        return max(probe.ci95[0] for probe in self.probes) > min(probe.ci95[1] for probe in self.probes)

    @property
    def is_throttling(self) -> bool:
        """Whether the reference was ever slower than at first by more than `MAX_SLOWDOWN`."""
        slowest = max(probe.ms for probe in self.probes)
        return self.is_known and slowest > (1 + MAX_SLOWDOWN) * self.probes[0].ms

    def factor(self, at_s: float) -> float:
        """How many times slower the device is than at first; 1 if no change is known."""
        return self._interpolated(at_s, [probe.ms for probe in self.probes]) if self.is_known else 1.0

    def factor_ci95(self, at_s: float) -> tuple[float, float]:
        """The factor at the ends of the probes' intervals."""
        if not self.is_known:
            return 1.0, 1.0
        low, high = zip(*(probe.ci95 for probe in self.probes), strict=True)
        return self._interpolated(at_s, low), self._interpolated(at_s, high)

    def corrected(self, measurement: Measurement, at_s: float) -> Measurement:
        """The measurement scaled to the device's initial speed, with its interval widened by the factor's.

        Its environment contains `drift_factor`, `reference_ms` and `reference_at_s`. Its verdict is `throttled` if the
        device is throttling, unless it is `contended`.
        """
        factor, (low, high) = self.factor(at_s), self.factor_ci95(at_s)
        latency = measurement.latency
        scaled = replace(_divided(latency, factor), ci95=(latency.ci95[0] / high, latency.ci95[1] / low))
        throttled = self.is_throttling and measurement.verdict != "contended"
        verdict: Verdict = "throttled" if throttled else measurement.verdict
        known = {
            "drift_factor": factor,
            "reference_ms": [probe.ms for probe in self.probes],
            "reference_at_s": [probe.at_s - self.probes[0].at_s for probe in self.probes],
        }
        return Measurement(scaled, verdict, {**measurement.environment, **known})

    def _interpolated(self, at_s: float, values: Sequence[float]) -> float:
        return float(np.interp(at_s, [probe.at_s for probe in self.probes], values)) / self.probes[0].ms


class Reference:
    """The reference network on a device.

    Args:
        device: runs it.
        spec: how it is timed, the same as for the candidates.
        file: see `reference_file`.
        clock: in seconds.
    """

    def __init__(self, device: Device, spec: MeasureSpec, file: Path, clock: Clock = time.monotonic) -> None:
        self.drift = Drift()
        self._device, self._spec, self._file, self._clock = device, spec, file, clock

    def probe(self) -> None:
        """Time it now."""
        measurement, at_s = self.timed(self._file)
        self.drift.probes.append(Probe(at_s, measurement.latency.p50, measurement.latency.ci95))

    def timed(self, file: Path) -> tuple[Measurement, float]:
        """A file's measurement, and the time of its middle.

        Raises:
            UserError: the file cannot be measured.
        """
        begin = self._clock()
        measurement = self._device.measure(file, self._spec)
        return measurement, (begin + self._clock()) / 2


def measure_batch(
    device: Device,
    files: Sequence[Path],
    spec: MeasureSpec,
    *,
    keep: Callable[[Path, Measurement], None] = lambda *_: None,
    track: Track = silent,
    clock: Clock = time.monotonic,
) -> list[Measurement | UserError]:
    """Time every file, with the reference before, in the middle and after, and correct the times for its drift.

    If a file cannot be measured, its error is in the list, and the others are still measured.

    Args:
        device: runs the files.
        files: the candidates.
        spec: how to time them.
        keep: is called with each measurement when it is taken, before the correction for drift is known.
        track: shows progress.
        clock: in seconds.

    Raises:
        UserError: the reference cannot be measured.
    """
    found: list[tuple[Measurement, float] | UserError] = []
    with reference_file() as file:
        reference = Reference(device, spec, file, clock)
        reference.probe()
        for position, candidate in enumerate(track(files, "profile", len(files)), start=1):
            try:
                measurement, at_s = reference.timed(candidate)
            except UserError as error:
                found.append(error)
            else:
                found.append((measurement, at_s))
                keep(candidate, measurement)
            if position in (len(files) // 2, len(files)):
                reference.probe()
    return [one if isinstance(one, UserError) else reference.drift.corrected(*one) for one in found]


@contextmanager
def reference_file() -> Iterator[Path]:
    """The reference network in a temporary file."""
    with tempfile.TemporaryDirectory(prefix="reference-") as folder:
        yield write_reference(Path(folder) / "reference.onnx")


def _divided(latency: Latency, factor: float) -> Latency:
    """The latency with every run divided by `factor`."""
    names = ("mean", "stdev", "p50", "p90", "p95", "p99")
    scaled: dict[str, Any] = {
        name: None if (value := getattr(latency, name)) is None else value / factor for name in names
    }
    return replace(latency, **scaled, values=tuple(value / factor for value in latency.values))
