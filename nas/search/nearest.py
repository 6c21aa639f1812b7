"""The nearest feasible architecture: a local search that changes one choice at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from espalier.nas.architecture import Architecture
from espalier.nas.space import SearchSpace

TRIES = 6
"""Neighbours that are checked before the next change is made; with good estimates the first one fits."""


def nearest_feasible(
    space: SearchSpace,
    start: Architecture,
    *,
    usage: Callable[[Architecture], float],
    fits: Callable[[Architecture], bool],
    utility: Callable[[Architecture], float],
) -> Architecture | None:
    """A feasible architecture that is few changes from `start`, and as good as possible for that.

    Among all neighbours with a lower usage, those expected to fit are checked, the best first. If none of them fits,
    the search moves to the neighbour that loses the least utility for each unit of usage saved,

        argmin_a (utility(now) - utility(a)) / (usage(now) - usage(a)),

    the greedy rule of the knapsack problem, and continues from there.

    Args:
        space: the space of the architectures.
        start: the chosen architecture, which does not fit.
        usage: estimate of the share of the limit that an architecture uses; cheap, at most 1 if it should fit.
        fits: whether an architecture fits; may be costly, and may improve `usage`.
        utility: how good an architecture is; called once for each.

    Returns:
        The architecture; None if no checked one fits and no neighbour has a lower usage.
    """
    tried = {start}
    known: dict[Architecture, float] = {}

    def value(architecture: Architecture) -> float:
        if architecture not in known:
            known[architecture] = utility(architecture)
        return known[architecture]

    now = start
    for _ in range(sum(len(choice.options) for choice in space.choices().values())):
        weight = usage(now)
        lighter = {a: usage(a) for a in neighbours(space, now) if a not in tried}
        lighter = {a: w for a, w in lighter.items() if w < weight}
        expected = sorted((a for a, w in lighter.items() if w <= 1), key=value, reverse=True)
        for architecture in expected[:TRIES]:
            tried.add(architecture)
            if fits(architecture):
                return architecture
        ahead = [a for a in lighter if a not in tried] or list(lighter)
        if not ahead:
            return None
        now = max(ahead, key=lambda a: (value(a) - value(now)) / (weight - lighter[a]))
        if now not in tried:
            tried.add(now)
            if usage(now) <= 1 and fits(now):
                return now
    return None


def neighbours(space: SearchSpace, architecture: Architecture) -> Iterator[Architecture]:
    """The architectures of the space that differ from another one in exactly one choice."""
    for name, choice in space.choices().items():
        for option in choice.options:
            changed = architecture.replace(name, option)
            if option != architecture[name] and space.contains(changed):
                yield changed
