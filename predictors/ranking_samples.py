"""Statistics of rankings over many samples at once, each given by how often it holds every architecture.

A bootstrap resample of n architectures is a row of n counts `w` that sum to n, and the sample itself the row of ones;
the best tenth of one is the row with the counts of all others set to 0. So one formula in `w` serves the value and all
its resamples, as a handful of array operations. Copies of one architecture are ties in both quantities.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from espalier.predictors.arrays import Floats, Indices

BLOCK = 512
"""Columns of the matrix of pairs that are held in memory at a time."""
ROUNDING = 1e-9
"""Share of the range of the outcomes within which an expected best counts as equal to a value."""


def bootstrap_counts(n: int, resamples: int, *, seed: int) -> Floats:
    """`(1 + resamples, n)`: the sample itself, then how often each of n draws with replacement takes each element."""
    draws = np.random.default_rng(seed).integers(n, size=(resamples, n))
    counts = np.bincount((draws + n * np.arange(resamples)[:, None]).ravel(), minlength=resamples * n)
    return np.concatenate([np.ones((1, n)), counts.reshape(resamples, n)])


@dataclass(frozen=True)
class Levels:
    """A quantity of n architectures as its different values, in increasing order, and the index of each one's.

    Attributes:
        values: `(G,)`.
        codes: `(n,)`.
    """

    values: Floats
    codes: Indices

    @classmethod
    def of(cls, quantity: ArrayLike) -> Levels:
        """The levels of n numbers; -inf is the lowest."""
        values, codes = np.unique(np.asarray(quantity, dtype=np.float64), return_inverse=True)
        return cls(values, codes)

    @cached_property
    def _order(self) -> Indices:
        return np.argsort(self.codes, kind="stable")

    @cached_property
    def _starts(self) -> Indices:
        return np.searchsorted(self.codes[self._order], np.arange(len(self.values)))

    def totals(self, w: Floats) -> Floats:
        """`(R, G)`: the sum of `w` `(R, n)` over the architectures of each level."""
        return np.add.reduceat(w[:, self._order], self._starts, axis=1)

    def midranks(self, w: Floats) -> Floats:
        """`(R, n)`: the rank of each architecture from 1 up, its mean where several are tied."""
        totals = self.totals(w)
        return (totals.cumsum(axis=1) - totals + (totals + 1) / 2)[:, self.codes]

    def is_constant(self, w: Floats) -> NDArray[np.bool_]:
        """`(R,)`: whether a sample holds fewer than two levels."""
        return (self.totals(w) > 0).sum(axis=1) < 2


def kendall(a: Levels, b: Levels, w: Floats) -> Floats:
    """Kendall's τ-b of each sample `(R,)`: (C - D) / √((P - T_a)(P - T_b)) over its P pairs, T tied in one quantity.

    With s_ij the product of the signs of a_i - a_j and b_i - b_j, C - D = Σ_ij w_i w_j s_ij / 2; P - T_a is half of
    N² - Σ_g W_g², W_g the size of a's level g. nan where a quantity is constant, and below three architectures.
    """
    n = w.sum(axis=1)
    untied_a, untied_b = (n**2 - (levels.totals(w) ** 2).sum(axis=1) for levels in (a, b))
    present = np.flatnonzero((w > 0).any(axis=0))
    x, y, w = a.codes[present], b.codes[present], w[:, present]
    counts = w.astype(np.float32)  # exact: sums of counts and signs are whole numbers below 2^24
    both = np.zeros(len(w))
    for start in range(0, len(present), BLOCK):
        part = slice(start, start + BLOCK)
        signs = (_signs(x, x[part]) * _signs(y, y[part])).astype(np.float32)
        both += ((counts @ signs) * w[:, part]).sum(axis=1)
    return _where(both, np.sqrt(untied_a * untied_b), n >= 3)


def spearman(a: Levels, b: Levels, w: Floats) -> Floats:
    """Spearman's ρ of each sample `(R,)`: Pearson's correlation of mean ranks; nan where `kendall` is."""
    n = w.sum(axis=1)
    x, y = (levels.midranks(w) - (n[:, None] + 1) / 2 for levels in (a, b))
    return _where((w * x * y).sum(axis=1), np.sqrt((w * x**2).sum(axis=1) * (w * y**2).sum(axis=1)), n >= 3)


def best(b: Levels, w: Floats, k: int) -> Floats:
    """The samples `(R, n)` cut down to their best k by b, and to all that are tied with the last of these."""
    downwards = b.totals(w)[:, ::-1].cumsum(axis=1)
    last = len(b.values) - 1 - (downwards >= k).argmax(axis=1)
    return w * (b.codes >= last[:, None])


def precision(a: Levels, b: Levels, w: Floats, k: int) -> Floats:
    """The share of the k predicted best of each sample `(R,)` that `best` counts among its true best k.

    Of architectures that a predicts to be equal, and of which not all are among the k, the mean over their orders.
    """
    totals, hits = a.totals(w)[:, ::-1], a.totals(best(b, w, k))[:, ::-1]
    taken = np.clip(k - (totals.cumsum(axis=1) - totals), 0, totals)
    return (taken * _where(hits, totals, totals > 0, otherwise=0.0)).sum(axis=1) / k


def regret(a: Levels, b: Levels, w: Floats) -> Floats:
    """How far the architecture that a predicts to be best in each sample `(R,)` is behind its best by b, at least 0.

    Of architectures that are predicted to be equally good, the mean.
    """
    behind = true_best(b, w)[:, None] - b.values[b.codes]
    totals, sums = a.totals(w)[:, ::-1], a.totals(w * behind)[:, ::-1]
    first = (totals > 0).argmax(axis=1)
    rows = np.arange(len(w))
    return sums[rows, first] / totals[rows, first]


def true_best(b: Levels, w: Floats) -> Floats:
    """The best outcome in each sample `(R,)`."""
    return b.values[len(b.values) - 1 - (b.totals(w)[:, ::-1] > 0).argmax(axis=1)]


def best_of_random(b: Levels, w: Floats, value: Floats) -> Floats:
    """The least number m of random architectures of each sample whose best is expected to reach `value` `(R,)`.

    Drawn without replacement from the N of a sample, of which N_g are of level g or below, the best of m is of level
    g or below with probability C(N_g, m) / C(N, m); so it is expected to be
    v_G - Σ_{g < G} (v_{g+1} - v_g) C(N_g, m) / C(N, m), which rises in m from the mean to the best of the sample.
    """
    below = b.totals(w).cumsum(axis=1).astype(np.intp)[:, :-1]
    n = w.sum(axis=1).astype(np.intp)
    log_factorial = np.concatenate([[0.0], np.log(np.arange(1, n.max() + 1)).cumsum()])
    steps = np.diff(b.values)
    slack = ROUNDING * (b.values[-1] - b.values[0])

    def expected(m: Indices) -> Floats:
        possible = below >= m[:, None]
        log_ways = log_factorial[below] - log_factorial[np.where(possible, below - m[:, None], 0)]
        log_all = log_factorial[n] - log_factorial[n - m]
        return b.values[-1] - (np.where(possible, np.exp(log_ways - log_all[:, None]), 0.0) * steps).sum(axis=1)

    short, enough = np.zeros_like(n), n.copy()  # the best of all n is the best there is
    while (enough - short > 1).any():
        middle = np.maximum((short + enough) // 2, 1)
        reached = expected(middle) >= value - slack
        enough, short = np.where(reached, middle, enough), np.where(reached, short, middle)
    return enough.astype(np.float64)


def _signs(x: Indices, y: Indices) -> NDArray[np.int8]:
    """`(len(x), len(y))`: of every difference."""
    return (x[:, None] > y).astype(np.int8) - (x[:, None] < y).astype(np.int8)


def _where(numerator: Floats, denominator: Floats, defined: NDArray[np.bool_], otherwise: float = np.nan) -> Floats:
    """The quotient where it is defined and the denominator is not 0."""
    defined = defined & (denominator > 0)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, otherwise), where=defined)
