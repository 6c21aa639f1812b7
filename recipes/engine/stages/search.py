"""Search the space for architectures that meet the objectives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.objective import Evaluator
from espalier.nas.progress import Track
from espalier.nas.search.candidate import Candidate
from espalier.nas.search.latency_cascade import LatencyCascade
from espalier.nas.search.loop import Search
from espalier.nas.space import SearchSpace
from espalier.predictors.surrogate import Surrogate
from espalier.recipes.config.sections.search import RecipeSearchSettings
from espalier.recipes.records.base import CandidateLatency
from espalier.recipes.records.search import CascadeCounts, Objective, SearchedCandidate, SearchResult


def run(
    settings: RecipeSearchSettings,
    *,
    space: SearchSpace,
    evaluators: Mapping[str, Evaluator],
    surrogate: Surrogate | None,
    cascade: LatencyCascade | None,
    is_affordable: Callable[[Architecture], bool],
    clock: Callable[[], float],
    journal: Path,
    study: str,
    seed: int,
    track: Track,
) -> SearchResult:
    """Runs the study; it goes on where an earlier process left it, also when more trials are asked for.

    Args:
        settings: the recipe's section `search`, with the budget's limits on params and MACs.
        space: to search.
        evaluators: everything that the settings name, cheap ones first.
        surrogate: the predictor that learns from the search, if the settings ask for one.
        cascade: finds and limits latency under a budget.
        is_affordable: whether an architecture is within the limits on params and MACs.
        clock: tells the seconds that evaluations take.
        journal: the file of the embedded storage.
        study: the study's name in the storage.
        seed: of all proposals.
        track: shows progress.

    Raises:
        UserError: nothing satisfies the constraints, or every evaluation fails.
    """
    search = Search(
        space,
        evaluators,
        settings,
        path=journal,
        name=study,
        seed=seed,
        surrogate=surrogate,
        allowed=is_affordable,
        cascade=cascade,
        clock=clock,
    )
    if settings.accuracy == "inherited" and settings.replay is None:  # others may be of any scale
        _check(search.candidates(), str(journal) if settings.storage is None else "search.storage")
    search.run(track=track)
    candidates = search.candidates()
    counts = Counter(candidate.status for candidate in candidates)
    return SearchResult(
        objectives=tuple(Objective(name=o.name, direction=o.direction) for o in search.objectives),
        constraints=tuple(map(str, search.constraints)),
        cascade=None if cascade is None else cascade_counts(candidates, cascade.limit),
        counts={
            **{status: counts[status] for status in ("complete", "infeasible", "failed")},
            "duplicates": search.duplicates,
        },
        stopped=search.stopped,
        candidates=tuple(_record(candidate, space.format(candidate.architecture)) for candidate in candidates),
        front=tuple(candidate.architecture.id for candidate in search.front()),
    )


def _check(candidates: Sequence[Candidate], where: str) -> None:
    """Raises UserError for an accuracy that cannot be: a database may have been edited."""
    for candidate in candidates:
        accuracy = candidate.values.get("accuracy", 0.0)
        if not 0 <= accuracy <= 1:
            problem = f"trial {candidate.trial}: accuracy is {accuracy}, must be from 0 to 1"
            raise UserError(where, problem, code="unreadable")


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
    checked = [(estimate, truth) for estimate, truth in both if estimate is not None and truth is not None]
    return CascadeCounts(
        limit_ms=limit,
        cost=sum(c.latency is None and c.status == "infeasible" for c in candidates),
        estimate=sum(result.fidelity == "estimate" for result in results),
        measurement=sum(result.fidelity == "measurement" for result in results),
        checked=len(checked),
        held=sum(estimate.low <= truth.value <= estimate.high for estimate, truth in checked),
    )
