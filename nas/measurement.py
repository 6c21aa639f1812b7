"""Numbers about an architecture. An `Estimate` is predicted, a `Measurement` was timed on a device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "nan", "failed", "out of memory", "timed out"]
Verdict = Literal["stable", "noisy", "drifting", "throttled", "contended"]


@dataclass(frozen=True)
class Estimate:
    """What a predictor returns for an architecture.

    Attributes:
        name: the predictor's name.
        value: the predicted number.
        unit: of the value; `""` for a score without a unit.
        higher_is_better: the direction in which the value is expected to be good.
        interval: a 95 % interval, if one is known.
        status: `ok`, or why the value cannot be used: `nan` for a value that is not finite, or the kind of failure.
        reason: the cause, if there is no value.
        provenance: what is needed to reproduce the number (seed, hash of the batch, number of images, ...).
    """

    name: str
    value: float
    unit: str
    higher_is_better: bool
    interval: tuple[float, float] | None = None
    status: Status = "ok"
    reason: str = ""
    provenance: Mapping[str, str | int | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) and self.status == "ok":
            object.__setattr__(self, "status", "nan")


@dataclass(frozen=True)
class Latency:
    """Statistics of the run time of one batch over all timed runs of all sessions, in optimum-benchmark's format.

    Attributes:
        unit: always `ms`.
        count: number of timed runs.
        mean: over the runs.
        stdev: over the runs.
        p50: the median.
        p90: the percentile; None if too few runs exceed it (see `export.timing.summarize`).
        p95: likewise.
        p99: likewise.
        ci95: 95 % bootstrap interval of p50. Sessions are resampled, for runs of one session are not independent.
        values: every timed run in order.
    """

    unit: Literal["ms"]
    count: int
    mean: float
    stdev: float
    p50: float
    p90: float | None
    p95: float | None
    p99: float | None
    ci95: tuple[float, float]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Measurement:
    """A latency that was timed on a device.

    Attributes:
        latency: statistics of the timed runs.
        verdict: the quality of the measurement.
        environment: fingerprint of the device and its software.
    """

    latency: Latency
    verdict: Verdict
    environment: Mapping[str, Any]

    @property
    def latency_ms(self) -> float:
        """The median run time of one batch, in milliseconds."""
        return self.latency.p50

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: `{latency: {unit, count, ..., values}, verdict, environment}`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Measurement:
        """The measurement that `to_dict` described."""
        latency = dict(value["latency"])
        latency["values"] = tuple(latency["values"])
        latency["ci95"] = tuple(latency["ci95"])
        return cls(Latency(**latency), value["verdict"], value["environment"])
