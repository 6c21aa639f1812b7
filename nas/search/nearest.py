"""The nearest architecture that keeps a limit: a local search over changes of one choice at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from espalier.nas.architecture import Architecture
from espalier.nas.space import SearchSpace

TRIES = 6
"""Architectures that are asked for certain before the next change is made: where guesses are good, the first fits."""


def nearest_feasible(
    space: SearchSpace,
    start: Architecture,
    *,
    usage: Callable[[Architecture], float],
    fits: Callable[[Architecture], bool],
    utility: Callable[[Architecture], float],
) -> Architecture | None:
    """An architecture that fits, few changes from `start`, and as good as can be had for that.

    Of all changes of one choice that make the network lighter, those expected to fit are tried, the best first. If none
    of them fits, the change is made that gives up the least utility for each unit of usage taken off,

        argmin_a (utility(now) - utility(a)) / (usage(now) - usage(a)),

    the greedy rule of the knapsack problem, and the search goes on from there.

    Args:
        start: what was chosen, and does not fit.
        usage: about what share of the limit an architecture takes; cheap, and at most 1 where it is expected to fit.
        fits: whether it does; may be costly, and may make `usage` wiser.
        utility: how good it is; asked once about each.

    Returns:
        None where nothing lighter is left, and nothing that was tried fits.
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
    """The architectures of the space that differ in one choice."""
    for name, choice in space.choices().items():
        for option in choice.options:
            changed = architecture.replace(name, option)
            if option != architecture[name] and space.contains(changed):
                yield changed
