"""Whole numbers of weights: shares that add up exactly, between bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from espalier.nas.errors import UserError
from espalier.pruning.weights import Weights


def keeps_at(weights: Weights, sparsity: float) -> int:
    """K = round((1 - S) ΣN), the weights that are kept in all.

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


def fill(q: Sequence[float], total: int, low: Sequence[int], high: Sequence[int]) -> np.ndarray:
    """clip(ε q, low, high) with the ε at which it adds up to `total`: in proportion to q, but between bounds.

    What a layer at its bound cannot take goes to the others, in proportion again.

    Args:
        q: above 0.
        low, high: whole numbers between which `total` lies once added up.
    """
    wanted, least, most = (np.asarray(values, dtype=np.float64) for values in (q, low, high))
    # The sum is piecewise linear in ε: between two neighbouring corners, where a layer reaches a bound, it is a line.
    corners = np.unique(np.concatenate([least / wanted, most / wanted]))
    sums = np.clip(corners[:, None] * wanted, least, most).sum(axis=1)
    return np.clip(np.interp(total, sums, corners) * wanted, least, most)


def whole(shares: Sequence[float] | np.ndarray, total: int) -> list[int]:
    """Round `shares`, which add up to `total`, so that they still do: the largest remainders are rounded up."""
    values = np.asarray(shares, dtype=np.float64)
    floors = np.floor(values + 1e-9)  # 4.9999999999 is a 5 that was computed
    missing = total - int(floors.sum())
    order = np.argsort(-(values - floors), kind="stable")
    floors[order[:missing]] += 1
    return [int(value) for value in floors]


def zeros_of(weights: Weights, keeps: Sequence[int]) -> dict[str, int]:
    """Zeros by name, from the numbers that are kept."""
    return {name: weight.numel() - keep for (name, weight), keep in zip(weights.items(), keeps, strict=True)}
