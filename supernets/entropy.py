"""Entropy of the preferences of a strategy."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from espalier.nas.region import Region


def mean_entropy(preferences: Mapping[str, Tensor], region: Region) -> float | None:
    """-sum_o p_o ln p_o / ln n of the n open options, the mean over choices: 1 is uniform, 0 decided.

    Args:
        preferences: the probability of each option, 0 outside the region, by choice.
        region: the open options; only undecided choices count.

    Returns:
        None if no undecided choice has a preference.
    """
    shares = [
        float(torch.special.entr(preferences[name]).sum()) / math.log(len(region[name]))
        for name in region.undecided
        if name in preferences
    ]
    return sum(shares) / len(shares) if shares else None
