"""The shape of a tree of supernets: who is trained from when to when, and split into how many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from espalier.nas.settings import Settings
from espalier.supernets.fewshot.partition import few_enough


class FewShotSettings(Settings):
    """When supernets are split, and how. The defaults are the paper's for NAS-Bench-201."""

    split_epochs: tuple[PositiveInt, ...] = Field((15, 30), min_length=1)
    """Epochs, counted from the start, after which every supernet is split."""
    branches: tuple[int, ...] = (2, 2)
    """Into how many, at each split."""
    leaf_epochs: PositiveInt = 30
    """Epochs of each supernet after the last split."""
    restart: Literal["none", "final"] = "final"
    """What follows the last split: final starts its supernets afresh, none lets them inherit as all others do."""
    freeze_alphas: bool = False
    """Architecture parameters learn in the supernets after the last split alone, and stay at their start before it."""
    split: Literal["gradients", "random"] = "gradients"
    """By gradient matching, or drawn as a control."""
    repeats: PositiveInt = 100
    """Batches on which a split is measured, at most."""
    agreement: float = Field(0.95, gt=0, le=1)
    """A split is measured until it is the best, its choice and its groups, in this share of bootstrap resamples."""

    @model_validator(mode="after")
    def _a_number_of_branches_for_each_split(self) -> FewShotSettings:
        if len(self.branches) != len(self.split_epochs):
            raise ValueError(f"branches has {len(self.branches)} numbers for {len(self.split_epochs)} split_epochs")
        if any(later <= earlier for earlier, later in pairwise(self.split_epochs)):
            raise ValueError(f"split_epochs must increase, not {self.split_epochs}")
        if min(self.branches) < 2:
            raise ValueError(f"branches must be at least 2, not {min(self.branches)}")
        return self

    @property
    def total_epochs(self) -> int:
        """Epochs of all supernets together: sum_l (T_l - T_{l-1}) prod_{i<l} B_i, the leaves included."""
        return sum(node.epochs - node.start for node in plan(self))

    @property
    def shortest(self) -> int:
        """The fewest epochs over which any supernet's learning rate falls; a warm-up must leave some of them."""
        return min(node.horizon for node in plan(self))


@dataclass(frozen=True)
class Node:
    """One supernet of the tree.

    Attributes:
        name: `root`, `root.0`, `root.0.1`, ...: the parent's name and the number of the group.
        start: epochs of the supernet it inherits from; 0 where it starts afresh.
        epochs: those after its training.
        horizon: epochs over which its learning rate falls.
        branches: into how many it is split; 0 for a leaf.
    """

    name: str
    start: int
    epochs: int
    horizon: int
    branches: int

    @property
    def parent(self) -> str:
        """The parent's name; empty for the root."""
        return self.name.rpartition(".")[0]


def first_impossible_split(counts: Iterable[int], branches: Sequence[int]) -> tuple[int, tuple[int, ...]] | None:
    """The first split for which no choice may be left, whatever choices the splits before it take.

    Args:
        counts: the number of options of each choice that may be split.
        branches: of each split.

    Returns:
        Its index, and the numbers of options of the choices that are then still whole; `None` if there is no such.
    """
    whole = {tuple(sorted(counts))}
    for level, groups in enumerate(branches):
        rest: set[tuple[int, ...]] = set()
        for left in whole:
            taken = [i for i, count in enumerate(left) if groups <= count and few_enough(count, groups)]
            if not taken:
                return level, left
            rest |= {left[:i] + left[i + 1 :] for i in taken}
        whole = rest
    return None


def plan(settings: FewShotSettings) -> list[Node]:
    """All supernets, level by level, so that parents come before their children."""
    whole = settings.split_epochs[-1] + settings.leaf_epochs
    names, nodes, start = ["root"], [], 0
    for epochs, branches in zip(settings.split_epochs, settings.branches, strict=True):
        nodes += [Node(name, start, epochs, whole, branches) for name in names]
        names = [f"{name}.{group}" for name in names for group in range(branches)]
        start = epochs
    if settings.restart == "none":
        return nodes + [Node(name, start, whole, whole, 0) for name in names]
    return nodes + [Node(name, 0, settings.leaf_epochs, settings.leaf_epochs, 0) for name in names]
