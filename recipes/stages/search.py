"""Search the space for what the objectives ask."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from nas.search.loop import Search
from recipes.context import Context


def run(context: Context) -> dict[str, Any]:
    """Runs the study; it goes on where an earlier process left it, also when more trials are asked for."""
    recipe = context.recipe
    search = Search(
        context.space,
        context.evaluators(),
        recipe.search,
        path=context.run / "study.journal",
        name=f"{recipe.name}-{context.study_key}",
        seed=context.seed("search"),
    )
    search.run(track=context.track)
    candidates = search.candidates()
    counts = Counter(c.status for c in candidates)
    duplicates = sum("duplicate_of" in t.user_attrs.get("record", {}) for t in search.study.trials)
    return {
        "objectives": [{"name": o.name, "direction": o.direction} for o in search.objectives],
        "constraints": [str(c) for c in search.constraints],
        "counts": {**{s: counts[s] for s in ("complete", "infeasible", "failed")}, "duplicates": duplicates},
        "candidates": [
            {
                "trial": c.trial,
                "id": c.architecture.id,
                "architecture": json.loads(c.architecture.to_json()),
                "notation": context.space.format(c.architecture),
                "status": c.status,
                "values": dict(c.values),
                "reason": c.reason,
                "seconds": c.seconds,
            }
            for c in candidates
        ],
        "front": [c.architecture.id for c in search.front()],
    }
