"""The ladder under a limit on latency: a guess where it is sure enough, a measurement where it is not.

What is exact (parameters, MACs) comes first, as any other constraint. Then a guess with an interval: clear of the
limit, it decides. Only a candidate whose interval meets the limit, or that would enter the front, is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from espalier.nas.architecture import Architecture
from espalier.nas.measurement import Estimate, Measurement
from espalier.nas.objective import Constraint

Rung = Literal["cost", "estimate", "measurement"]


@dataclass(frozen=True)
class Range:
    """Attributes: value: a latency in ms. low, high: its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ms [{self.low:.4g}, {self.high:.4g}]"

    @classmethod
    def of(cls, found: Estimate | Measurement) -> Range:
        """That of an estimate with an interval, or of a measurement."""
        if isinstance(found, Measurement):
            return cls(found.latency_ms, *found.latency.ci95)
        assert found.interval is not None
        return cls(found.value, *found.interval)


@dataclass(frozen=True)
class Climb:
    """How far one architecture had to climb.

    Attributes:
        estimate: what was guessed, if anything was.
        measured: what was timed, if it had to be.
        verdict: on the timing; empty where there is none.
    """

    estimate: Range | None = None
    measured: Range | None = None
    verdict: str = ""

    @property
    def rung(self) -> Rung:
        """What its latency was decided by."""
        return "measurement" if self.measured is not None else "estimate"

    @property
    def known(self) -> Range:
        """The measurement or, as long as there is none, the estimate."""
        known = self.measured or self.estimate
        assert known is not None
        return known

    @property
    def remark(self) -> str:
        """On the value: that it was guessed, or the verdict on a timing that is not stable."""
        if self.measured is None:
            return "estimated"
        return "" if self.verdict == "stable" else self.verdict

    def to_record(self) -> dict[str, Any]:
        """Plain JSON types."""

        def row(one: Range | None) -> list[float] | None:
            return None if one is None else [one.value, one.low, one.high]

        return {"estimate": row(self.estimate), "measured": row(self.measured), "verdict": self.verdict}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Climb:
        """The climb that `to_record` described."""
        estimate, measured = (Range(*record[key]) if record[key] else None for key in ("estimate", "measured"))
        return cls(estimate, measured, record["verdict"])


@dataclass(frozen=True)
class Ladder:
    """Latencies of candidates under a limit.

    Attributes:
        limit: milliseconds; what is returned under it was measured, and the upper end of its interval is within it.
        estimate: a guess with a 95 % interval; `None` where too little is known to make one.
        measure: times an architecture; asked again, it gives the same measurement.
        name: of the value, as in constraints and objectives.
    """

    limit: float
    estimate: Callable[[Architecture], Estimate | None]
    measure: Callable[[Architecture], Measurement]
    name: str = "latency_ms"

    @property
    def constraint(self) -> Constraint:
        """`latency_ms <= limit`."""
        return Constraint(self.name, "<=", self.limit)

    def climb(self, architecture: Architecture) -> Climb:
        """An estimate that is clear of the limit, else a measurement.

        Raises:
            UserError: the architecture cannot be exported or measured.
        """
        guess = self.estimate(architecture)
        if guess is None or guess.status != "ok" or guess.interval is None:
            return self.to_the_top(architecture)
        climb = Climb(estimate=Range.of(guess))
        meets = climb.known.low <= self.limit < climb.known.high
        return self.to_the_top(architecture, climb) if meets else climb

    def to_the_top(self, architecture: Architecture, climb: Climb | None = None) -> Climb:
        """The climb with a measurement, for what is to be returned.

        Raises:
            UserError: the architecture cannot be exported or measured.
        """
        measurement = self.measure(architecture)
        return Climb(None if climb is None else climb.estimate, Range.of(measurement), measurement.verdict)

    def fits(self, climb: Climb) -> bool:
        """Whether the upper end of what is known is within the limit."""
        return climb.known.high <= self.limit

    def miss(self, climb: Climb) -> str:
        """Why it does not fit, in a clause."""
        how = "measured" if climb.measured else "estimated"
        return f"{self.name} = {climb.known}, {how}, not {self.constraint}"
