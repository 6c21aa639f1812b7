"""Numbers about an architecture: `Estimate` is guessed, `Measurement` is timed. No report shows one as the other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "nan", "failed", "out of memory", "timed out"]
Verdict = Literal["stable", "noisy", "drifting", "throttled", "contended"]


@dataclass(frozen=True)
class Estimate:
    """What a predictor says of an architecture before it is trained.

    Attributes:
        name: the predictor's name.
        value: its number.
        unit: `""` for a pure score.
        higher_is_better: the direction in which the number is expected to be good; never hidden by an abs().
        interval: a 95 % interval, where one is known.
        status: `ok`, or why `value` is not a number to use. A value that is not finite is `nan`, never replaced; what
            failed, did not fit into memory or took too long has no value.
        reason: the cause, where there is no value.
        provenance: what is needed to get the number again (seed, hash of the batch, number of images, ...).
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
    """Statistics of one batch's run time over all timed runs of all sessions, in the shape of optimum-benchmark.

    Attributes:
        unit: always `ms`.
        count: timed runs.
        mean, stdev, p50: over the runs.
        p90, p95, p99: likewise; None where too few runs lie beyond them to say (see `export.timing.summarize`).
        ci95: 95 % bootstrap interval of p50, sessions resampled (runs of one session are not independent).
        values: every timed run in order, for plots and later statistics.
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
    """A latency timed on a device, the verdict on its quality, and the fingerprint of where it was taken."""

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
