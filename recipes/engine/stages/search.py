"""Search the space for what the objectives ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from espalier.nas.search.candidate import Candidate
from espalier.nas.search.loop import Search
from espalier.recipes.engine.context import Context
from espalier.recipes.engine.search_setup import SearchParts
from espalier.recipes.records.base import CandidateLatency
from espalier.recipes.records.search import CascadeCounts, Objective, SearchedCandidate, SearchResult


def run(context: Context) -> SearchResult:
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
        cascade=parts.cascade,
        clock=parts.clock,
    )
    search.run(track=context.track)
    candidates = search.candidates()
    counts = Counter(candidate.status for candidate in candidates)
    return SearchResult(
        objectives=tuple(Objective(name=o.name, direction=o.direction) for o in search.objectives),
        constraints=tuple(map(str, search.constraints)),
        cascade=None if parts.cascade is None else cascade_counts(candidates, parts.cascade.limit),
        counts={
            **{status: counts[status] for status in ("complete", "infeasible", "failed")},
            "duplicates": search.duplicates,
        },
        stopped=search.stopped,
        candidates=tuple(_record(candidate, context.space.format(candidate.architecture)) for candidate in candidates),
        front=tuple(candidate.architecture.id for candidate in search.front()),
    )


def _record(candidate: Candidate, notation: str) -> SearchedCandidate:
    return SearchedCandidate(
        architecture=candidate.architecture,
        notation=notation,
        trial=candidate.trial,
        status=candidate.status,
        values=dict(candidate.values),
        remarks=dict(candidate.remarks),
        reason=candidate.reason,
        seconds=candidate.seconds,
        latency=None if candidate.latency is None else CandidateLatency.of(candidate.latency),
    )


def cascade_counts(candidates: Sequence[Candidate], limit: float) -> CascadeCounts:
    """How candidates were decided under a limit on latency in ms."""
    results = [c.latency for c in candidates if c.latency is not None]
    both = [(result.estimate, result.measured) for result in results]
    checked = [(guess, truth) for guess, truth in both if guess is not None and truth is not None]
    return CascadeCounts(
        limit_ms=limit,
        cost=sum(c.latency is None and c.status == "infeasible" for c in candidates),
        estimate=sum(result.fidelity == "estimate" for result in results),
        measurement=sum(result.fidelity == "measurement" for result in results),
        checked=len(checked),
        held=sum(guess.low <= truth.value <= guess.high for guess, truth in checked),
    )
