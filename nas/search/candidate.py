"""One architecture judged: every number that was asked for, up to the first that rules it out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nas.architecture import Architecture
from nas.errors import CannotWrite
from nas.objective import Constraint, Evaluator


@dataclass(frozen=True)
class Candidate:
    """An architecture that a search has finished with.

    Attributes:
        trial: the number of the trial.
        status: `complete`, `infeasible` (a constraint is broken) or `failed`.
        values: every number found out, by evaluator name; those before the failure where there was one.
        remarks: on values not to be trusted blindly, such as the verdict on a timing that was not stable.
        reason: why it is infeasible or failed, else empty.
        seconds: time that the evaluation took.
    """

    trial: int
    architecture: Architecture
    status: Literal["complete", "infeasible", "failed"]
    values: Mapping[str, float]
    remarks: Mapping[str, str]
    reason: str
    seconds: float

    def to_record(self) -> dict[str, Any]:
        """Plain JSON types; without the trial's number, which the trial itself knows."""
        return {
            "architecture": json.loads(self.architecture.to_json()),
            "id": self.architecture.id,
            "status": self.status,
            "values": dict(self.values),
            "remarks": dict(self.remarks),
            "reason": self.reason,
            "seconds": self.seconds,
        }

    @classmethod
    def from_record(cls, trial: int, record: Mapping[str, Any]) -> Candidate:
        """The candidate of trial `trial` that `to_record` described."""
        fields = {name: value for name, value in record.items() if name not in ("id", "architecture")}
        return cls(trial=trial, architecture=Architecture(record["architecture"]), **fields)


def judge(
    trial: int,
    architecture: Architecture,
    evaluators: Mapping[str, Evaluator],
    *,
    objectives: Collection[str],
    constraints: Sequence[Constraint],
    clock: Callable[[], float] = time.perf_counter,
) -> Candidate:
    """Ask for what constraints and objectives name, constraints first, until one is broken or an evaluation fails.

    Args:
        trial: the number of the trial. architecture: to judge.
        evaluators: by name, cheap ones first.
        objectives: names of what must be known of a complete candidate. constraints: what it must satisfy.
        clock: tells the time, in seconds.

    Raises:
        CannotWrite: the disk is full; that is not the architecture's fault. Every other failure is recorded.
    """
    started = clock()
    values: dict[str, float] = {}
    remarks: dict[str, str] = {}

    def candidate(status: Literal["complete", "infeasible", "failed"], reason: str = "") -> Candidate:
        seconds = round(clock() - started, 4)
        return Candidate(trial, architecture, status, values, remarks, reason, seconds)

    limited = {constraint.name for constraint in constraints}
    wanted = [name for name in evaluators if name in limited or name in objectives]
    for name in sorted(wanted, key=lambda name: name not in limited):  # stable: cheap first within each part
        try:
            value, remark = evaluators[name](architecture)
        except CannotWrite:
            raise
        except Exception as error:  # noqa: BLE001 - the reason is recorded, and the study goes on
            return candidate("failed", f"{name}: {type(error).__name__}: {error}")
        broken = [c for c in constraints if c.name == name and c.is_broken_by(value)]
        if math.isfinite(value):
            values[name] = value
            if remark:
                remarks[name] = remark
        elif not broken:
            return candidate("failed", f"{name}: {remark}" if remark else f"{name} is {value}")
        if broken:
            return candidate("infeasible", f"{name} = {value:g}, not {broken[0]}")
    return candidate("complete")


def nearest_miss(candidates: Collection[Candidate], constraints: Sequence[Constraint]) -> str:
    """Why none of the candidates is complete: the one that breaks its constraint by the smallest share of it."""
    misses = [
        (constraint.violation(candidate.values[constraint.name]) / (abs(constraint.bound) or 1), candidate)
        for candidate in candidates
        if candidate.status == "infeasible"
        for constraint in constraints
        if constraint.name in candidate.values and constraint.violation(candidate.values[constraint.name]) > 0
    ]
    if not misses:
        reasons = {candidate.reason for candidate in candidates}
        return f"no architecture could be evaluated ({'; '.join(sorted(reasons)) or 'the space is empty'})"
    _, nearest = min(misses, key=lambda miss: miss[0])
    return f"none of {len(candidates)} architectures is allowed; the nearest miss has {nearest.reason}"
