"""Search the space for what the objectives ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from espalier.nas.search.candidate import Candidate
from espalier.nas.search.loop import Search
from espalier.recipes.engine.context import Context
from espalier.recipes.engine.search_setup import SearchParts


def run(context: Context) -> dict[str, Any]:
    """Runs the study; it goes on where an earlier process left it, also when more trials are asked for."""
    settings = context.recipe.search
    assert settings is not None
    parts = SearchParts(context, settings)
    search = Search(
        context.space,
        parts.evaluators(),
        parts.settings,
        path=context.run / "study.journal",
        name=f"{context.run.path.resolve().name}-{context.study_key}",
        seed=context.seed("search"),
        surrogate=parts.surrogate(),
        allowed=context.is_affordable,
        ladder=parts.ladder,
        clock=parts.clock,
    )
    search.run(track=context.track)
    candidates = search.candidates()
    counts = Counter(candidate.status for candidate in candidates)
    return {
        "objectives": [{"name": o.name, "direction": o.direction} for o in search.objectives],
        "constraints": [str(constraint) for constraint in search.constraints],
        "ladder": None if parts.ladder is None else ladder_counts(candidates, parts.ladder.limit),
        "counts": {
            **{status: counts[status] for status in ("complete", "infeasible", "failed")},
            "duplicates": search.duplicates,
        },
        "stopped": search.stopped,
        "candidates": [
            {"trial": c.trial, "notation": context.space.format(c.architecture), **c.to_record()} for c in candidates
        ],
        "front": [candidate.architecture.id for candidate in search.front()],
    }


def ladder_counts(candidates: Sequence[Candidate], limit: float) -> dict[str, Any]:
    """How candidates were decided under a limit on latency.

    Returns:
        `limit_ms`; by rung the number of candidates that were decided there: `cost` (another limit, which needs no
        latency, was broken), `estimate`, `measurement`; of the estimates that were followed by a measurement, `checked`
        of them, how many had it within their interval, `held`.
    """
    climbs = [c.latency for c in candidates if c.latency is not None]
    both = [(climb.estimate, climb.measured) for climb in climbs]
    checked = [(guess, truth) for guess, truth in both if guess is not None and truth is not None]
    return {
        "limit_ms": limit,
        "cost": sum(c.latency is None and c.status == "infeasible" for c in candidates),
        "estimate": sum(climb.rung == "estimate" for climb in climbs),
        "measurement": sum(climb.rung == "measurement" for climb in climbs),
        "checked": len(checked),
        "held": sum(guess.low <= truth.value <= guess.high for guess, truth in checked),
    }
