"""Groups of options that agree within and disagree across: an exact cut of the similarity graph.

Hu et al., "Generalizing Few-Shot NAS with Gradient Matching", ICLR 2022.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Groups = tuple[tuple[int, ...], ...]
"""Disjoint sets of options, each increasing, in the order of their smallest members."""

TIE = 1e-9
"""Similarities closer than this are equal: what is left between them is the order of a sum."""
MAX_PARTITIONS = 10_000
"""All partitions are tried, so there must not be more: up to 16 options into two groups, 12 into three."""


@dataclass(frozen=True, eq=False)
class Partitions:
    """All partitions of n options into B groups of floor(n/B) to ceil(n/B) options each.

    Attributes:
        labels: the group of each option, int (partitions, n), in lexicographic order.
        weights: float (partitions, pairs): 1 / (pairs across the cut) for pairs (o, o') in two groups, 0 for the
            others. Pairs are ordered as `numpy.triu_indices(n, 1)`.
    """

    labels: NDArray[np.int64]
    weights: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    def cut(self, similarity: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean similarity across each cut, (..., partitions), of pair similarities (..., pairs).

        The paper minimises `sum_{o in U_i, o' in U_j, i != j} S_oo'`. Group sizes are given, so the mean has the same
        minimum; and it compares choices that have different numbers of options.
        """
        return similarity @ self.weights.T

    def groups(self, index: int) -> Groups:
        """One of the partitions."""
        labels = self.labels[index]
        return tuple(tuple(np.flatnonzero(labels == group).tolist()) for group in range(labels.max() + 1))


@functools.lru_cache
def near_equal(n: int, branches: int) -> Partitions:
    """The partitions of n options into `branches` groups whose sizes differ by at most one.

    Raises:
        ValueError: fewer than two groups, fewer options than groups, or more than `MAX_PARTITIONS`.
    """
    if not 2 <= branches <= n:
        raise ValueError(f"{n} options cannot be parted into {branches} groups, at least two")
    if not few_enough(n, branches):
        count = count_near_equal(n, branches)
        raise ValueError(f"{n} options can be parted into {branches} groups in {count} ways, too many to try")
    labels = np.array(list(partitions(n, branches, n // branches, math.ceil(n / branches))))
    first, second = np.triu_indices(n, 1)
    across = labels[:, first] != labels[:, second]
    return Partitions(labels, across / across.sum(1, keepdims=True))


def count_near_equal(n: int, branches: int) -> int:
    """Their number: n! / (prod_i |U_i|! * larger! * smaller!), where `larger` groups have one option more."""
    size, larger = divmod(n, branches)
    sizes = math.factorial(size + 1) ** larger * math.factorial(size) ** (branches - larger)
    return math.factorial(n) // (sizes * math.factorial(larger) * math.factorial(branches - larger))


def few_enough(n: int, branches: int) -> bool:
    """Whether all partitions of n options can be tried."""
    return count_near_equal(n, branches) <= MAX_PARTITIONS


def partitions(n: int, groups: int, smallest: int, largest: int) -> Iterator[tuple[int, ...]]:
    """Every set partition of n things into `groups` sets of `smallest` to `largest`, once each.

    Each is a restricted growth string: the set of thing i, where a set not yet used has the next free number.
    """

    def grow(labels: tuple[int, ...], sizes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if sum(max(0, smallest - size) for size in sizes) + smallest * (groups - len(sizes)) > n - len(labels):
            return
        if len(labels) == n:
            yield labels
            return
        for label, size in enumerate(sizes):
            if size < largest:
                yield from grow((*labels, label), (*sizes[:label], size + 1, *sizes[label + 1 :]))
        if len(sizes) < groups:
            yield from grow((*labels, len(sizes)), (*sizes, 1))

    return grow((), ())


def first_smallest(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """The index of the smallest value along the last axis; of equal ones (to `TIE`) the first."""
    return np.argmax(values <= values.min(-1, keepdims=True) + TIE, axis=-1)


def pair_similarity(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """S = 1 - D of each pair of options, (..., pairs), of distances (..., n, n)."""
    first, second = np.triu_indices(distances.shape[-1], 1)
    return 1 - distances[..., first, second]


def best_cut(distances: NDArray[np.float64], branches: int) -> tuple[Groups, float]:
    """The groups that are least similar to each other, and their mean similarity across the cut.

    Args:
        distances: D, (n, n), symmetric.
        branches: number of groups B.

    Raises:
        ValueError: see `near_equal`.
    """
    candidates = near_equal(len(distances), branches)
    cuts = candidates.cut(pair_similarity(distances))
    best = int(first_smallest(cuts))
    return candidates.groups(best), float(cuts[best])
