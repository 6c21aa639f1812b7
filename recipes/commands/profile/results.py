"""What `profile` and `compare` find; as JSON in the shape of optimum-benchmark's reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from espalier.export.comparison import Comparison
from espalier.export.end_to_end import EndToEnd
from espalier.export.load import Load
from espalier.export.operators import OperatorProfile
from espalier.export.timing import percentile
from espalier.nas.measurement import Measurement


@dataclass(frozen=True)
class TimedFile:
    """An ONNX file with its latency.

    Attributes:
        file: its path, as given.
        measurement: the latency of one run, the verdict on it, and where it was timed.
    """

    file: str
    measurement: Measurement

    @property
    def batch(self) -> int:
        """Images in a run."""
        return int(self.measurement.environment["batch"])

    @property
    def images_per_s(self) -> float:
        """Throughput of runs one after the other."""
        return 1000 * self.batch / self.measurement.latency.mean

    @property
    def load_ms(self) -> Sequence[float]:
        """Time to load the file, one for each session."""
        loads: Sequence[float] = self.measurement.environment["load_ms"]
        return loads

    @property
    def first_run_ms(self) -> Sequence[float]:
        """Time of the first run of each session: the cold start, which no timed run contains."""
        runs: Sequence[float] = self.measurement.environment["cold_start_ms"]
        return runs

    @property
    def joules_per_run(self) -> float | None:
        """Energy of a run; None if the device does not count it."""
        joules: float | None = self.measurement.environment.get("energy_j_per_run")
        return joules

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        energy, joules = None, self.joules_per_run
        if joules is not None:
            energy = {"unit": "J/run", "value": joules, "of": self.measurement.environment["energy_source"]}
        return {
            "file": self.file,
            **self.measurement.to_dict(),
            "throughput": {"unit": "samples/s", "value": self.images_per_s},
            "load": {"latency": _spread(self.load_ms)},
            "first_run": {"latency": _spread(self.first_run_ms)},
            "energy": energy,
        }


@dataclass(frozen=True)
class Profile(TimedFile):
    """The latency of an ONNX file, and what else was asked for.

    Attributes:
        end_to_end: whole requests from an encoded image to the outputs, and their steps.
        concurrency: throughput by batch and number of callers.
        operators: the time by operator, source module and kernel.
    """

    end_to_end: EndToEnd | None = None
    concurrency: Sequence[Load] | None = None
    operators: OperatorProfile | None = None

    def to_dict(self) -> dict[str, Any]:
        """As `nas profile --json` prints it; what was not asked for is absent."""
        found = super().to_dict()
        if self.end_to_end is not None:
            found["end_to_end"] = self.end_to_end.to_dict()
        if self.concurrency is not None:
            found["concurrency"] = [load.to_dict() for load in self.concurrency]
        if self.operators is not None:
            found["operators"] = self.operators.to_dict()
        return found


@dataclass(frozen=True)
class FileComparison:
    """Several ONNX files, timed in turns; see `espalier.export.comparison.Comparison`.

    Attributes:
        comparison: the first file, and each other one against it.
    """

    comparison: Comparison

    @property
    def files(self) -> list[TimedFile]:
        """All files, in order."""
        first = TimedFile(self.comparison.baseline, self.comparison.measurement)
        return [first, *(TimedFile(other.file, other.measurement) for other in self.comparison.others)]

    def to_dict(self) -> dict[str, Any]:
        """As `nas profile FILE FILE... --json` prints it."""
        return {
            "files": [file.to_dict() for file in self.files],
            "comparison": [
                {
                    "file": other.file,
                    "baseline": self.comparison.baseline,
                    "ratio": other.ratio,
                    "ci95": list(other.ci95),
                    "ratios": list(other.ratios),
                    "faster": other.faster,
                }
                for other in self.comparison.others
            ],
        }


def _spread(values_ms: Sequence[float]) -> dict[str, Any]:
    """Statistics of one value per session, in the shape of a latency."""
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
