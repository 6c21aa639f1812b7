"""Evaluating one architecture, until everything is known or a constraint is broken."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from espalier.nas.architecture import Architecture
from espalier.nas.errors import CannotWrite
from espalier.nas.objective import Constraint, Evaluator
from espalier.nas.search.latency_cascade import CascadeResult, LatencyCascade


@dataclass(frozen=True)
class Candidate:
    """An architecture that a search has evaluated.

    Attributes:
        trial: the number of the trial.
        architecture: the architecture.
        status: `complete`, `infeasible` (it breaks a constraint) or `failed`.
        values: all known numbers by evaluator name; after a failure, those before it.
        remarks: on values that need caution, such as the verdict on a measurement that is not stable.
        reason: why it is infeasible or failed; else empty.
        seconds: duration of the evaluation.
        latency: what is known of the latency; None if it was not needed or is not limited.
    """

    trial: int
    architecture: Architecture
    status: Literal["complete", "infeasible", "failed"]
    values: Mapping[str, float]
    remarks: Mapping[str, str]
    reason: str
    seconds: float
    latency: CascadeResult | None = None

    def to_record(self) -> dict[str, Any]:
        """Plain JSON types, without the number of the trial."""
        return {
            "architecture": json.loads(self.architecture.to_json()),
            "id": self.architecture.id,
            "status": self.status,
            "values": dict(self.values),
            "remarks": dict(self.remarks),
            "reason": self.reason,
            "seconds": self.seconds,
            **({} if self.latency is None else {"latency": self.latency.to_record()}),
        }

    @classmethod
    def from_record(cls, trial: int, record: Mapping[str, Any]) -> Candidate:
        """The candidate that `to_record` described.

        Args:
            trial: the number of its trial.
            record: what `to_record` returned.
        """
        fields = {name: value for name, value in record.items() if name not in ("id", "architecture", "latency")}
        latency = CascadeResult.from_record(record["latency"]) if "latency" in record else None
        return cls(trial=trial, architecture=Architecture(record["architecture"]), latency=latency, **fields)


def evaluate_candidate(
    trial: int,
    architecture: Architecture,
    evaluators: Mapping[str, Evaluator],
    *,
    objectives: Collection[str],
    constraints: Sequence[Constraint],
    cascade: LatencyCascade | None = None,
    would_enter_front: Callable[[Mapping[str, float]], bool] = lambda values: True,
    clock: Callable[[], float] = time.perf_counter,
) -> Candidate:
    """Evaluate constraints, then objectives, until a constraint is broken or an evaluation fails.

    Args:
        trial: the number of the trial.
        architecture: the architecture to evaluate.
        evaluators: by name, cheap ones first.
        objectives: names of the values that a complete candidate must have.
        constraints: what it must satisfy.
        cascade: limits the latency, and replaces its evaluator.
        would_enter_front: whether a candidate with some values would enter the Pareto front; then its latency must be
            measured.
        clock: returns the time in seconds.

    Raises:
        CannotWrite: the disk is full. Every other failure is recorded in the candidate.
    """
    started = clock()
    values: dict[str, float] = {}
    remarks: dict[str, str] = {}
    result: CascadeResult | None = None

    def candidate(status: Literal["complete", "infeasible", "failed"], reason: str = "") -> Candidate:
        seconds = round(clock() - started, 4)
        return Candidate(trial, architecture, status, values, remarks, reason, seconds, result)

    limited = {constraint.name for constraint in constraints} | ({cascade.name} if cascade else set())
    wanted = [name for name in evaluators if name in limited or name in objectives]
    for name in sorted(
        wanted, key=lambda name: name not in limited
    ):  # a stable sort: cheap ones first within each part
        try:
            if cascade is not None and name == cascade.name:
                result = cascade.evaluate(architecture)
                value, remark = result.known.value, result.remark
            else:
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
        if cascade is not None and result is not None and not cascade.fits(result):
            return candidate("infeasible", cascade.miss(result))
    complete = candidate("complete")
    if (
        cascade is None
        or result is None
        or result.measured
        or not would_enter_front({**values, cascade.name: result.known.low})
    ):
        return complete
    return replace(_measured(complete, cascade), seconds=round(clock() - started, 4))


def _measured(candidate: Candidate, cascade: LatencyCascade) -> Candidate:
    """A complete candidate with an estimated latency, after measuring it."""
    try:
        result = cascade.with_measurement(candidate.architecture, candidate.latency)
    except CannotWrite:
        raise
    except Exception as error:  # noqa: BLE001 - as in `evaluate_candidate`
        return replace(candidate, status="failed", reason=f"{cascade.name}: {type(error).__name__}: {error}")
    remarks = {name: remark for name, remark in candidate.remarks.items() if name != cascade.name}
    return replace(
        candidate,
        status="complete" if cascade.fits(result) else "infeasible",
        values={**candidate.values, cascade.name: result.known.value},
        remarks={**remarks, **({cascade.name: result.remark} if result.remark else {})},
        reason="" if cascade.fits(result) else cascade.miss(result),
        latency=result,
    )


def nearest_miss(
    candidates: Collection[Candidate], constraints: Sequence[Constraint], cascade: LatencyCascade | None = None
) -> str:
    """Why no candidate is complete, as a clause for messages.

    Candidates are evaluated up to the first constraint that they break. The message names the constraint that the
    largest share of its candidates breaks, and the candidate that breaks it by the smallest share of its bound.

    Args:
        candidates: all candidates.
        constraints: of the search.
        cascade: the limit on latency, if there is one.
    """

    def violation(constraint: Constraint, candidate: Candidate) -> float:
        value = candidate.values.get(constraint.name, math.nan)
        if cascade is not None and constraint.name == cascade.name and candidate.latency and candidate.latency.measured:
            value = candidate.latency.measured.high  # the end of the interval that must be within the limit
        return constraint.violation(value) / (abs(constraint.bound) or 1)

    limits = [*constraints, *([cascade.constraint] if cascade else [])]
    checked = [[(violation(limit, c), c) for c in candidates if math.isfinite(violation(limit, c))] for limit in limits]
    misses = [[miss for miss in one if miss[0] > 0 and miss[1].status == "infeasible"] for one in checked]
    if not any(misses):
        reasons = {candidate.reason for candidate in candidates}
        return f"no architecture could be evaluated ({'; '.join(sorted(reasons)) or 'the space is empty'})"
    _, hardest = max(zip(checked, misses, strict=True), key=lambda pair: len(pair[1]) / (len(pair[0]) or 1))
    _, nearest = min(hardest, key=lambda miss: miss[0])
    return f"none of {len(candidates)} architectures satisfies all constraints; the nearest miss has {nearest.reason}"
