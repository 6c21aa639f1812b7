"""Sparsemax: Martins & Astudillo, "From Softmax to Sparsemax", ICML 2016."""

from __future__ import annotations

import torch
from torch import Tensor


def sparsemax(z: Tensor) -> Tensor:
    """The projection of z `(n,)` onto the simplex, argmin_p ||p - z||^2, in which small entries are exactly 0.

        p_i = max(0, z_i - tau)
        tau = (sum_(j <= k) z_(j) - 1) / k    with the largest k such that 1 + k z_(k) > sum_(j <= k) z_(j)

    (algorithm 1 of the paper). Its gradient is that of the entries above 0, with their mean taken off.
    """
    ordered = z.sort(descending=True).values
    ranks = torch.arange(1, len(z) + 1, device=z.device, dtype=z.dtype)
    sums = ordered.cumsum(0) - 1
    thresholds = sums / ranks
    return (z - thresholds.max()).clamp(min=0)  # where the support ends the threshold is largest: no search for k
