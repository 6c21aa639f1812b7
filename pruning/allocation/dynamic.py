"""One choice for each layer under a budget: the dynamic program of L-GreCo."""

from __future__ import annotations

from typing import Any

import numpy as np

from espalier.nas.errors import UserError

Table = np.ndarray[Any, np.dtype[np.float64]]
"""A number for each layer and choice, `(layers, choices)`."""
BUCKETS = 10_000


def cheapest(errors: Table, costs: Table, budget: float, *, buckets: int = BUCKETS) -> list[int]:
    """The choice of each layer that minimises Σ costs where Σ errors is at most `budget`.

    Markov et al., "L-GreCo: Layerwise-Adaptive Gradient Compression for Efficient Data-parallel Deep Learning", MLSys
    2024. With budget / D to a bucket and q_l(c) = ceil(error / bucket),

        DP[l][e] = min_c DP[l - 1][e - q_l(c)] + cost_l(c),   e = 0 ... D.

    Rounding up never breaks the budget and wastes less than one bucket for each layer: no choice within `budget` minus
    that waste is cheaper. No choice that is the same in all layers is cheaper either. Errors of a layer are counted
    from its smallest, which wastes less and allows negative errors. To minimise errors under a budget of costs, swap
    the two. Errors should be additive: squared norms, saliencies, increases of a loss.

    Args:
        errors: `(layers, choices)`.
        costs: `(layers, choices)`.
        budget: limit on the sum of errors.
        buckets: D.

    Returns:
        The index of each layer's choice; of equally cheap ones the one with the smaller error.

    Raises:
        UserError: even the smallest errors add up to more than the budget.
    """
    errors, costs = np.asarray(errors, dtype=np.float64), np.asarray(costs, dtype=np.float64)
    smallest = errors.min(axis=1, keepdims=True)
    room = budget - float(smallest.sum())
    if not room >= -1e-12 * abs(budget):
        problem = f"{budget:g} is too small: the smallest values of all layers add up to {smallest.sum():g}"
        raise UserError("budget", problem, code="infeasible")
    q = _in_buckets(errors - smallest, max(room, 0.0), buckets)
    layers = np.arange(len(errors))
    found = np.array(_program(q, costs, buckets))
    same_in_all = [c for c in range(errors.shape[1]) if errors[:, c].sum() <= budget]
    best = min(same_in_all, key=lambda c: costs[:, c].sum(), default=None)
    if best is not None and costs[:, best].sum() < costs[layers, found].sum():
        return [best] * len(errors)
    return [int(c) for c in found]


def _in_buckets(errors: Table, budget: float, buckets: int) -> np.ndarray:
    """q, capped at `buckets` + 1 for "too many". 3.0000000001 buckets are 3 with rounding error."""
    if budget == 0:
        return np.where(errors > 0, buckets + 1, 0)
    with np.errstate(over="ignore"):
        return np.clip(np.ceil(errors / budget * buckets - 1e-9), 0, buckets + 1).astype(np.int64)


def _program(q: np.ndarray, costs: Table, buckets: int) -> list[int]:
    """The cheapest choices with Σ q at most `buckets`: fill the table DP, then trace back through it."""
    best = np.zeros(buckets + 1)  # DP[0]: no layer costs nothing, whatever is left of the budget
    chosen = np.zeros((len(q), buckets + 1), dtype=np.int32)
    for layer, needs in enumerate(q):
        before, best = best, np.full(buckets + 1, np.inf)
        for c in np.argsort(needs, kind="stable"):
            if needs[c] > buckets:
                break
            candidate = before[: buckets + 1 - needs[c]] + costs[layer, c]
            better = candidate < best[needs[c] :]
            np.copyto(best[needs[c] :], candidate, where=better)
            np.copyto(chosen[layer, needs[c] :], c, where=better)
    left, way = buckets, []
    for layer in reversed(range(len(q))):
        way.append(int(chosen[layer, left]))
        left -= int(q[layer, way[-1]])
    return way[::-1]
