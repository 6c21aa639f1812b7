"""Filters: rule out architectures that a cheap score ranks low, before any costly evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from espalier.nas.architecture import Architecture
from espalier.nas.objective import Constraint, Evaluator
from espalier.nas.progress import Track
from espalier.nas.search.scores import utilities


@dataclass(frozen=True)
class BestShare(Constraint):
    """A limit on a score, at a quantile of its values over random architectures.

    Attributes:
        keep: share of random architectures that satisfy it.
        among: number of random architectures that the quantile was found with.
    """

    keep: float
    among: int

    def is_broken_by(self, value: float) -> bool:
        """Whether the value is beyond the bound or not finite."""
        return not math.isfinite(value) or self.violation(value) > 0

    def __str__(self) -> str:
        return f"among the best {100 * self.keep:g} % of {self.among} random architectures"


def best_share(evaluator: Evaluator, sample: Sequence[Architecture], keep: float, track: Track) -> BestShare:
    """The constraint that the best `keep` of a sample satisfy, rounded up to a whole architecture.

    Args:
        evaluator: the score; values that are not finite count as worst.
        sample: random architectures.
        keep: share to keep.
        track: shows progress.
    """
    ranked = sorted(utilities(evaluator, sample, track, f"filter by {evaluator.name}"), reverse=True)
    bound = ranked[math.ceil(keep * len(ranked)) - 1]
    result = evaluator.evaluate(sample[0])
    if getattr(result, "higher_is_better", False):
        return BestShare(evaluator.name, ">=", bound, keep, len(sample))
    return BestShare(evaluator.name, "<=", -bound, keep, len(sample))
