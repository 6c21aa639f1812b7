"""Search the space for what the objectives ask."""

from __future__ import annotations

from collections import Counter
from typing import Any

from nas.search.loop import Search
from recipes.context import Context
from recipes.search_parts import SearchParts


def run(context: Context) -> dict[str, Any]:
    """Runs the study; it goes on where an earlier process left it, also when more trials are asked for."""
    settings = context.recipe.search
    assert settings is not None
    parts = SearchParts(context, settings)
    search = Search(
        context.space,
        parts.evaluators(),
        settings,
        path=context.run / "study.journal",
        name=f"{context.run.path.resolve().name}-{context.study_key}",
        seed=context.seed("search"),
        surrogate=parts.surrogate(),
        allowed=context.is_affordable,
        clock=parts.clock,
    )
    search.run(track=context.track)
    candidates = search.candidates()
    counts = Counter(candidate.status for candidate in candidates)
    return {
        "objectives": [{"name": o.name, "direction": o.direction} for o in search.objectives],
        "constraints": [str(constraint) for constraint in search.constraints],
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
