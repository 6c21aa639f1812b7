"""The difference of two classifiers' accuracies on the same images, with its confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Z = 1.959964
"""97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class PairedDrop:
    """The drop in accuracy from a first classifier to a second one, on the same images.

    Attributes:
        value: the drop as a proportion of all images; negative if the second is better.
        low: lower end of the 95 % interval.
        high: upper end of the 95 % interval.
        lost: number of images that only the first classifies correctly.
        gained: number of images that only the second classifies correctly.
        count: number of images.
    """

    value: float
    low: float
    high: float
    lost: int
    gained: int
    count: int

    @classmethod
    def of(cls, first_right: np.ndarray, second_right: np.ndarray) -> PairedDrop:
        """The drop, from which images each classifies correctly.

        Args:
            first_right: bool `(n,)`.
            second_right: bool `(n,)`, for the same images in the same order.

        Raises:
            ValueError: there are no images.
        """
        lost, gained = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
        low, high = score_interval(lost, gained, len(first_right))
        return cls((lost - gained) / len(first_right), low, high, lost, gained, len(first_right))


def score_interval(b: int, c: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of the difference `p_b - p_c` of paired proportions.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
    Statistics in Medicine 17 (1998) 891, equations 5 to 7: all D with `|b - c - n D| <= z sqrt(n (2 q + D (1 - D)))`,
    where q, the maximum likelihood estimate of `p_c` given D, is the larger root of `2 n q^2 + B q - c D (1 - D) = 0`
    with `B = (2 n - b + c) D - b - c`. For b = c = 0 it is `+-z^2 / (n + z^2)`.

    Args:
        b: discordant pairs with only the first correct.
        c: discordant pairs with only the second correct.
        n: all pairs.

    Raises:
        ValueError: there are no pairs.
    """
    from scipy.optimize import brentq

    if n < 1:
        raise ValueError("there are no images")

    def score(difference: float) -> float:
        linear = (2 * n - b + c) * difference - b - c
        constant = c * difference * (1 - difference)
        q = (math.sqrt(linear**2 + 8 * n * constant) - linear) / (4 * n)
        variance = n * (2 * q + difference * (1 - difference))
        return float((b - c - n * difference) / math.sqrt(variance))

    estimate, least = (b - c) / n, 1e-12
    low = -1.0 if b - c == -n else brentq(lambda d: score(d) - Z, -1 + least, estimate - least)
    high = 1.0 if b - c == n else brentq(lambda d: score(d) + Z, estimate + least, 1 - least)
    return float(low), float(high)
