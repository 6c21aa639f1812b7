"""The order in which units are removed: step by step over all groups, the least important first."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from espalier.pruning.structured.groups import Removed, Units, lowest_units

Ratio = Literal["global", "uniform"]
"""`global`: the least important of the whole network first. `uniform`: the same share of every group."""


@dataclass(frozen=True)
class Order:
    """A sequence of removals.

    Attributes:
        moves: the group that each move takes one step from.
        kept: by group, how many units stay after each of its steps, starting with all.
        scores: by group, the importance of each unit.
    """

    moves: Sequence[str]
    kept: Mapping[str, Sequence[int]]
    scores: Mapping[str, Tensor]

    def removed(self, count: int) -> Removed:
        """The units removed by the first `count` moves."""
        return self.gone(self.taken(count))

    def taken(self, count: int) -> dict[str, int]:
        """How many steps of each group are among the first `count` moves."""
        taken = dict.fromkeys(self.kept, 0)
        for name in self.moves[:count]:
            taken[name] += 1
        return taken

    def gone(self, taken: Mapping[str, int]) -> Removed:
        """The units removed by these numbers of steps of each group."""
        return {
            name: lowest_units(self.scores[name], self.kept[name][0] - self.kept[name][steps])
            for name, steps in taken.items()
            if steps
        }


def order(
    groups: Sequence[Units],
    kept: Mapping[str, Sequence[int]],
    scores: Mapping[str, Tensor],
    *,
    ratio: Ratio,
    unit_cost: Mapping[str, float] | None,
) -> Order:
    """Put the steps of all groups in order.

    A step's rank is the mean score of its units; with `unit_cost` (by group), the score divided by the cost it saves;
    with `uniform`, the share of the group removed after it. Within a group ranks never decrease.
    """
    ranked: list[tuple[float, int, int, str]] = []
    for index, units in enumerate(groups):
        counts, ascending = kept[units.name], scores[units.name].sort(stable=True).values
        rank = -float("inf")
        for step, (before, after) in enumerate(itertools.pairwise(counts)):
            share = 1 - after / units.width
            value = float(ascending[units.width - before : units.width - after].mean())
            if unit_cost is not None:
                value /= max(unit_cost[units.name], 1.0)
            rank = max(rank, share if ratio == "uniform" else value)
            ranked.append((rank, index, step, units.name))
    ranked.sort()
    return Order([name for *_, name in ranked], kept, scores)


def trial(groups: Sequence[Units], kept: Mapping[str, Sequence[int]], *, even: bool) -> Removed:
    """A test removal of units drawn at random.

    Args:
        groups: all groups.
        kept: how many units stay after each step, by group.
        even: about half of each group's steps; else of every second group only, so that a tensor that is cut in two
            loses more on one side.
    """
    generator = torch.Generator().manual_seed(0)
    removed: Removed = {}
    for index, units in enumerate(groups):
        counts = kept[units.name]
        steps = len(counts) // 2 if even or index % 2 else 0
        gone = units.width - counts[steps]
        removed[units.name] = lowest_units(torch.rand(units.width, generator=generator), gone)
    return removed
