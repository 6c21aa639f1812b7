"""The baselines that every other predictor should beat: the numbers of parameters and of multiply-accumulates.

As predictors of accuracy, more is better. As objectives of a search, where less is better, they are defined elsewhere.
"""

from __future__ import annotations

from espalier.nas.architecture import Architecture
from espalier.nas.cost.count import CostCounter
from espalier.nas.measurement import Estimate
from espalier.nas.space import SearchSpace


class _CostPredictor:
    """A field of `espalier.nas.cost.count.Cost` as a predictor of accuracy.

    Args:
        space: where the architectures are from.
        counter: of the same space, to share its counts with other predictors; by default its own.
    """

    name: str
    unit: str
    higher_is_better = True

    def __init__(self, space: SearchSpace, counter: CostCounter | None = None) -> None:
        self._count = counter or CostCounter(space)

    def __call__(self, architecture: Architecture) -> Estimate:
        """The cost of the stand-alone network; exact.

        Raises:
            UserError: not an architecture of the space.
        """
        cost = self._count(architecture)
        return Estimate(self.name, float(getattr(cost, self.name)), self.unit, self.higher_is_better)


class ParamsPredictor(_CostPredictor):
    """The number of parameters as a predictor of accuracy: more is better."""

    name = "params"
    unit = "params"


class MacsPredictor(_CostPredictor):
    """The multiply-accumulates of one image (`nas.cost.count.count`) as a predictor of accuracy: more is better."""

    name = "macs"
    unit = "MACs"
