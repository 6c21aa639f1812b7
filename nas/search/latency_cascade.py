"""Multi-fidelity checks of a latency limit: an estimate where it is certain enough, a measurement where it is not.

Exact costs (parameters, MACs) are checked first, like any other constraint. Next comes an estimate with an interval,
which decides if the whole interval is on one side of the limit. Only a candidate whose interval contains the limit, or
that would enter the Pareto front, is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from espalier.nas.architecture import Architecture
from espalier.nas.measurement import Estimate, Measurement
from espalier.nas.objective import Constraint

Fidelity = Literal["cost", "estimate", "measurement"]


@dataclass(frozen=True)
class LatencyInterval:
    """A latency with its 95 % interval, in milliseconds.

    Attributes:
        value: the estimate, or the measured median.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ms [{self.low:.4g}, {self.high:.4g}]"

    @classmethod
    def of(cls, found: Estimate | Measurement) -> LatencyInterval:
        """The interval of an estimate that has one, or of a measurement."""
        if isinstance(found, Measurement):
            return cls(found.latency_ms, *found.latency.ci95)
        assert found.interval is not None
        return cls(found.value, *found.interval)


@dataclass(frozen=True)
class CascadeResult:
    """What is known of the latency of one architecture.

    Attributes:
        estimate: the estimate, if one was made.
        measured: the measurement, if one was needed.
        verdict: on the quality of the measurement; empty without one.
    """

    estimate: LatencyInterval | None = None
    measured: LatencyInterval | None = None
    verdict: str = ""

    @property
    def fidelity(self) -> Fidelity:
        """The fidelity that decided."""
        return "measurement" if self.measured is not None else "estimate"

    @property
    def known(self) -> LatencyInterval:
        """The measurement if there is one, else the estimate."""
        known = self.measured or self.estimate
        assert known is not None
        return known

    @property
    def remark(self) -> str:
        """`estimated`, or the verdict on a measurement that is not stable; else empty."""
        if self.measured is None:
            return "estimated"
        return "" if self.verdict == "stable" else self.verdict

    def to_record(self) -> dict[str, Any]:
        """Plain JSON types."""

        def row(one: LatencyInterval | None) -> list[float] | None:
            return None if one is None else [one.value, one.low, one.high]

        return {"estimate": row(self.estimate), "measured": row(self.measured), "verdict": self.verdict}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> CascadeResult:
        """The result that `to_record` described."""
        estimate, measured = (
            LatencyInterval(*record[key]) if record[key] else None for key in ("estimate", "measured")
        )
        return cls(estimate, measured, record["verdict"])


@dataclass(frozen=True)
class LatencyCascade:
    """Latencies of candidates under a limit.

    Attributes:
        limit: milliseconds. Results are always measured, and the upper end of their interval is within the limit.
        estimate: an estimate with a 95 % interval; `None` while too little is known to make one.
        measure: times an architecture; repeated calls return the same measurement.
        name: the value's name in constraints and objectives.
    """

    limit: float
    estimate: Callable[[Architecture], Estimate | None]
    measure: Callable[[Architecture], Measurement]
    name: str = "latency_ms"

    @property
    def constraint(self) -> Constraint:
        """`latency_ms <= limit`."""
        return Constraint(self.name, "<=", self.limit)

    def evaluate(self, architecture: Architecture) -> CascadeResult:
        """The estimate if its interval does not contain the limit, else a measurement.

        Raises:
            UserError: the architecture cannot be exported or measured.
        """
        estimate = self.estimate(architecture)
        if estimate is None or estimate.status != "ok" or estimate.interval is None:
            return self.with_measurement(architecture)
        result = CascadeResult(estimate=LatencyInterval.of(estimate))
        undecided = result.known.low <= self.limit < result.known.high
        return self.with_measurement(architecture, result) if undecided else result

    def with_measurement(self, architecture: Architecture, result: CascadeResult | None = None) -> CascadeResult:
        """The result with a measurement, which everything that is returned must have.

        Args:
            architecture: the one to measure.
            result: what is known so far; its estimate is kept.

        Raises:
            UserError: the architecture cannot be exported or measured.
        """
        measurement = self.measure(architecture)
        return CascadeResult(
            None if result is None else result.estimate, LatencyInterval.of(measurement), measurement.verdict
        )

    def fits(self, result: CascadeResult) -> bool:
        """Whether the upper end of the known interval is within the limit."""
        return result.known.high <= self.limit

    def miss(self, result: CascadeResult) -> str:
        """Why it does not fit, as a clause for messages."""
        how = "measured" if result.measured else "estimated"
        return f"{self.name} = {result.known}, {how}, not {self.constraint}"
