"""Which architectures are trained alone: those found, and controls to compare them with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.seeds import Seeds
from espalier.nas.space import SearchSpace
from espalier.recipes.config.sections.train import FinalTrainSettings
from espalier.recipes.engine.baselines import SameSize, is_elastic, largest
from espalier.recipes.engine.budget import Budget
from espalier.recipes.records.search import SearchResult, SelectResult

CONTROL_TRIES = 10
"""Architectures that may be measured for each control under a budget."""
CONTROL_DRAWS = 10_000
"""Random architectures to look at for those that are affordable and new."""


class Chosen(NamedTuple):
    """An architecture to train alone, and what it was chosen by (see `TrainedNetwork.origin`)."""

    architecture: Architecture
    origin: str


def choose(
    settings: FinalTrainSettings,
    selected: SelectResult | None,
    searched: SearchResult | None,
    *,
    space: SearchSpace,
    is_affordable: Callable[[Architecture], bool],
    budget: Budget | None,
    seeds: Seeds,
) -> list[Chosen]:
    """What was selected from the supernet, then architectures spread along the front of the search, then controls.

    Controls are random architectures within the limits on params and MACs and, in an elastic space, the largest network
    and a random one of the size of each that was found. No two of all are isomorphic.

    Under a budget all of them meet it, measured as results are. On the front, others replace those that do not; of
    controls there may be fewer.

    Args:
        settings: how many to take.
        selected: what the stage `select` chose.
        searched: what the stage `search` found.
        space: of the architectures.
        is_affordable: whether an architecture is within the limits on params and MACs.
        budget: what all of them have to meet, if the recipe has one.
        seeds: of the controls.

    Raises:
        UserError: nothing on the front meets the budget.
    """
    chosen: list[Chosen] = []

    def add(architectures: Iterable[Architecture], origin: str, most: int) -> None:
        new = _distinct(space, architectures, [a for a, _ in chosen], most)
        chosen.extend(Chosen(architecture, origin) for architecture in new)

    for one in selected.chosen if selected else ():
        add([one.architecture], one.method, 1)
    front = [] if searched is None else _front(settings.front, searched, space, budget, required=selected is None)
    add(front, "front", len(front))
    if is_elastic(space):
        same_size = SameSize(space, seeds.generator("same size"))
        found = [architecture for architecture, _ in chosen]
        add(_allowed(budget, [largest(space)], 1), "largest", 1)
        for architecture in found:
            add(_allowed(budget, same_size(architecture), CONTROL_TRIES), "same size", 1)
    if settings.random:
        generator = seeds.generator("control")
        draws = (space.sample(generator) for _ in range(CONTROL_DRAWS))
        affordable = _allowed(budget, filter(is_affordable, draws), CONTROL_TRIES * settings.random)
        add(affordable, "random", settings.random)
    return chosen


def _allowed(budget: Budget | None, architectures: Iterable[Architecture], most: int) -> Iterator[Architecture]:
    """Those that meet the budget, of the first `most` where there is one."""
    return iter(architectures) if budget is None else filter(budget.allows, itertools.islice(architectures, most))


def _front(
    most: int, searched: SearchResult, space: SearchSpace, budget: Budget | None, *, required: bool
) -> list[Architecture]:
    """At most `most` architectures spread evenly along the front, both ends included, no two of them isomorphic."""
    found = searched.front_architectures
    front = _distinct(space, found, [], len(found))
    while front:
        count = min(most, len(front))
        taken = [front[round(i * (len(front) - 1) / max(1, count - 1))] for i in range(count)]
        missed = [a for a in taken if budget is not None and not budget.allows(a)]
        if not missed:
            return taken
        front = [architecture for architecture in front if architecture not in missed]
    if budget is not None and required:
        problem = f"nothing on the front meets it when measured as a result is; {budget.miss()}"
        raise UserError("budget", problem, code="infeasible")
    return []


def _distinct(
    space: SearchSpace, architectures: Iterable[Architecture], taken: Sequence[Architecture], most: int
) -> list[Architecture]:
    """The first `most` of each isomorphism class, without the classes of those already taken."""
    seen = {space.isomorphism_class(architecture) for architecture in taken}
    kept: list[Architecture] = []
    for architecture in architectures:
        if len(kept) >= most:
            break
        name = space.isomorphism_class(architecture)
        if name not in seen:
            seen.add(name)
            kept.append(architecture)
    return kept
