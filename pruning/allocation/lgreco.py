"""Allocations by the dynamic program: cheapest at a given error, best at a given cost, or at a given sparsity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import PositiveInt

from espalier.nas.arguments import checked_arguments
from espalier.nas.errors import UserError
from espalier.pruning.allocation.choices import Choices, choices
from espalier.pruning.allocation.dynamic import BUCKETS, cheapest
from espalier.pruning.allocation.rounding import keeps_at
from espalier.pruning.allocation.uniform import uniform
from espalier.pruning.weights import Weights

LARGEST_ALPHA = 1e6
"""Budgets are searched from the error of uniform sparsity over this to this times it."""


@checked_arguments
def lgreco(
    weights: Weights, sparsity: float, table: Choices | None = None, *, buckets: PositiveInt = BUCKETS
) -> dict[str, int]:
    """Zeros at exactly the given sparsity, with the smallest error or the smallest cost.

    Where costs are numbers of weights, the program minimises the error for the number of kept weights, and the result
    has no larger error than uniform sparsity. (The optimum for the squares of magnitude is `global_magnitude`; this is
    within a few percent of it.) Where costs are something else (multiply-accumulates, latency), it minimises the
    cost, at an error of α times that of uniform sparsity; bisection finds the smallest α that keeps few enough
    weights. In both cases the remaining difference to the exact number is made up by the scores of single weights.

    Args:
        weights: by name; left as they are.
        sparsity: S, at least 0 and below 1.
        table: see `choices`; by default errors by magnitude and costs in weights.
        buckets: D of the dynamic program.

    Raises:
        UserError: an option is out of range, the table belongs to another network, or the sparsity cannot be reached.
    """
    keeps = keeps_at(weights, sparsity)
    if table is None:
        table = choices(weights)
    if table.names != tuple(weights) or table.sizes.tolist() != [weight.numel() for weight in weights.values()]:
        raise UserError("table", "belongs to another network", code="mismatch")
    total = int(table.sizes.sum()) - keeps
    uniform_zeros = list(uniform(weights, sparsity).values())
    if table.by_params:
        zeros = corrected(table, _best_within(table, keeps, buckets), total)
        if table.error_at(uniform_zeros) < table.error_at(zeros):
            zeros = uniform_zeros
    else:
        zeros = corrected(table, _cheapest_with(table, total, table.error_at(uniform_zeros), buckets), total)
    return dict(zip(table.names, zeros, strict=True))


def cheapest_within(table: Choices, sparsity: float, *, alpha: float = 1.0, buckets: int = BUCKETS) -> dict[str, int]:
    """The zeros at which the network is cheapest, with an error of at most α times that of uniform sparsity."""
    budget = alpha * table.error_at(sparsity * table.sizes)
    return _by_name(table, table.zeros_at(cheapest(table.errors, table.costs, budget, buckets=buckets)))


def best_within(table: Choices, cost: float, *, buckets: int = BUCKETS) -> dict[str, int]:
    """The zeros at which the error is smallest, with a sum of costs of at most `cost`.

    Raises:
        UserError: the network costs more at its sparsest.
    """
    return _by_name(table, table.zeros_at(cheapest(table.costs, table.errors, cost, buckets=buckets)))


def corrected(table: Choices, zeros: Sequence[int] | np.ndarray, total: int) -> list[int]:
    """`zeros` changed weight by weight until they add up to `total`: the lowest scores go, or the highest come back.

    At least one weight of each layer stays.
    """
    counts = [int(count) for count in zeros]
    missing = total - sum(counts)
    pairs = list(zip(table.scores, counts, strict=True))
    if missing == 0:
        return counts
    if missing > 0:
        parts = [scores[count:-1] for scores, count in pairs]
    else:
        parts = [-scores[:count] for scores, count in pairs]
    layer = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    changed = layer[np.argpartition(np.concatenate(parts), abs(missing) - 1)[: abs(missing)]]
    sign = 1 if missing > 0 else -1
    return [count + sign * int(n) for count, n in zip(counts, np.bincount(changed, minlength=len(counts)), strict=True)]


def _best_within(table: Choices, keeps: int, buckets: int) -> np.ndarray:
    """Choices with at most `keeps` weights, or the sparsest ones where none has so few."""
    if table.costs[:, -1].sum() >= keeps:
        return table.zeros[:, -1]
    return table.zeros_at(cheapest(table.costs, table.errors, keeps, buckets=buckets))


def _cheapest_with(table: Choices, total: int, uniform_error: float, buckets: int) -> np.ndarray:
    """The cheapest choices at the smallest error budget that leaves `total` zeros, or nearly: 30 halvings."""
    smallest = float(table.errors.min(axis=1).sum())
    scale = max(uniform_error - smallest, np.finfo(np.float64).tiny)
    low, high = -np.log(LARGEST_ALPHA), np.log(LARGEST_ALPHA)
    found = table.zeros[:, -1]
    for _ in range(30):
        middle = (low + high) / 2
        budget = smallest + scale * float(np.exp(middle))
        zeros = table.zeros_at(cheapest(table.errors, table.costs, budget, buckets=buckets))
        if zeros.sum() >= total:
            found, high = zeros, middle
        else:
            low = middle
    return found


def _by_name(table: Choices, zeros: np.ndarray) -> dict[str, int]:
    return {name: int(count) for name, count in zip(table.names, zeros, strict=True)}
