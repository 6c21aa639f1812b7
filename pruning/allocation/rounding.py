"""Whole numbers of weights that add up exactly, between bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from espalier.nas.errors import UserError
from espalier.pruning.weights import Weights


def keeps_at(weights: Weights, sparsity: float) -> int:
    """K = round((1 - S) ΣN), the number of weights kept in total.

    Raises:
        UserError: S is out of range, or leaves fewer weights than layers.
    """
    if not 0 <= sparsity < 1:
        raise UserError("sparsity", f"must be at least 0 and below 1, not {sparsity:g}", code="out_of_range")
    n = sum(weight.numel() for weight in weights.values())
    keeps = round((1 - sparsity) * n)
    if keeps < len(weights):
        problem = f"{sparsity:g} keeps {keeps} of {n} weights, fewer than one in each layer"
        raise UserError("sparsity", problem, code="infeasible")
    return keeps


def proportional_shares(q: Sequence[float], total: int, low: Sequence[int], high: Sequence[int]) -> np.ndarray:
    """Shares clip(ε q, low, high), with the ε at which they add up to `total`: proportional to q, but between bounds.

    What exceeds the bound of one layer is distributed over the others, again in proportion to q.

    Args:
        q: proportions, above 0.
        total: between the sums of `low` and `high`.
        low: lower bounds.
        high: upper bounds.
    """
    wanted, least, most = (np.asarray(values, dtype=np.float64) for values in (q, low, high))
    # The sum is piecewise linear in ε; its corners are where a layer reaches a bound.
    corners = np.unique(np.concatenate([least / wanted, most / wanted]))
    sums = np.clip(corners[:, None] * wanted, least, most).sum(axis=1)
    return np.clip(np.interp(total, sums, corners) * wanted, least, most)


def round_to_total(shares: Sequence[float] | np.ndarray, total: int) -> list[int]:
    """Round `shares` so that they still add up to `total`: the largest remainders are rounded up."""
    values = np.asarray(shares, dtype=np.float64)
    floors = np.floor(values + 1e-9)  # 4.9999999999 is a 5 with rounding error
    missing = total - int(floors.sum())
    order = np.argsort(-(values - floors), kind="stable")
    floors[order[:missing]] += 1
    return [int(value) for value in floors]


def zeros_of(weights: Weights, keeps: Sequence[int]) -> dict[str, int]:
    """Zeros by name, from the numbers of kept weights."""
    return {name: weight.numel() - keep for (name, weight), keep in zip(weights.items(), keeps, strict=True)}
