"""Results of the stages `select` and `search`: architectures found, not yet trained alone."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from espalier.nas.architecture import Architecture
from espalier.recipes.records.base import ArchitectureRecord, CandidateLatency, Record
from espalier.recipes.records.supernet import Decision


class ReplacedArchitecture(ArchitectureRecord):
    """What a method chose first, and which limit it exceeds."""

    why: str


class SelectedArchitecture(ArchitectureRecord):
    """An architecture chosen from a supernet."""

    method: str
    part: str
    """The supernet."""
    accuracy: float
    """In [0, 1], with the supernet's weights, on the selection images."""
    latency: CandidateLatency | None = None
    """Under a budget that limits it."""
    replaces: ReplacedArchitecture | None = None
    """The method's first choice, where that exceeds the budget."""


class SelectResult(Record):
    """What each method chose from each supernet."""

    chosen: tuple[SelectedArchitecture, ...]
    """The best of each method."""
    candidates: tuple[SelectedArchitecture, ...]
    decisions: tuple[Decision, ...] = ()
    misses: tuple[str, ...] = ()
    """Why choices were dropped: nothing near them meets the budget."""


class Objective(Record):
    """What the search improves."""

    name: str
    direction: Literal["maximize", "minimize"]


class SearchedCandidate(ArchitectureRecord):
    """An architecture that the search has evaluated."""

    trial: int
    status: Literal["complete", "infeasible", "failed"]
    values: dict[str, float | None]
    """By the name of the objective, constraint or score."""
    remarks: dict[str, str] = Field(default_factory=dict)
    """On values that need care, such as a timing that was not stable."""
    reason: str = ""
    """Why it is infeasible or failed."""
    seconds: float = 0.0
    """Time that the evaluation took."""
    latency: CandidateLatency | None = None
    """Under a limit on latency."""


class CascadeCounts(Record):
    """How candidates were decided under a limit on latency."""

    limit_ms: float
    cost: int
    """Another limit, which needs no latency, was exceeded."""
    estimate: int
    """Decided by an estimate."""
    measurement: int
    """Decided by a measurement."""
    checked: int
    """Estimates that were followed by a measurement."""
    held: int
    """Those of them whose interval holds the measurement."""


class SearchResult(Record):
    """All candidates of a search, and its front."""

    objectives: tuple[Objective, ...]
    constraints: tuple[str, ...] = ()
    cascade: CascadeCounts | None = None
    counts: dict[str, int]
    """Candidates by status, and `duplicates`."""
    stopped: str = ""
    """Why the search ended before all its trials, if it did."""
    candidates: tuple[SearchedCandidate, ...]
    front: tuple[str, ...]
    """Ids of the candidates that no other dominates, best first by the first objective."""

    @property
    def front_architectures(self) -> list[Architecture]:
        """The architectures on the front, best first by the first objective."""
        by_id = {candidate.id: candidate.architecture for candidate in self.candidates}
        return [by_id[id_] for id_ in self.front]
