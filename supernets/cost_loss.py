"""How the expected cost of an architecture enters the loss of its parameters.

Cai, Zhu & Han, "ProxylessNAS", ICLR 2019, section 3.2, add it to the cross-entropy; their code multiplies by it.
Neither makes the reference a target: it only scales a gradient, which Adam ignores in the multiplicative form, or
lambda in the additive one. `TargetLoss` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from espalier.nas.cost.model import CostModel
from espalier.nas.errors import UserError
from espalier.nas.region import Region

ARRIVAL = 0.7
"""Share of the training at which a falling limit reaches its target; the rest is for what is left to decide."""

CostLossName = Literal["none", "multiplicative", "additive", "target"]


class CostLoss:
    """A loss of the cross-entropy `ce` and the expected cost E, all scalars; here L = CE, without the cost.

    All costs are in one unit.
    """

    def __call__(self, ce: Tensor, expected: Tensor) -> Tensor:
        """The loss, with its graph to both."""
        return ce

    def observe(self, expected: float, progress: float) -> None:
        """Called after each step of the architecture parameters with E and the share of the training that is done."""

    def row(self) -> dict[str, float]:
        """Its numbers for the epoch's row."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Its state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class MultiplicativeLoss(CostLoss):
    """L = alpha CE (ln E / ln reference)^beta, the form of the authors' code.

    Args:
        reference: a cost above 1.
        alpha: as above.
        beta: as above.

    Raises:
        UserError: `reference` is not above 1, so that its logarithm is not positive.
    """

    def __init__(self, reference: float, *, alpha: float = 0.2, beta: float = 0.3) -> None:
        self._log_reference = math.log(_above_one("the target", reference))
        self._alpha = alpha
        self._beta = beta

    def __call__(self, ce: Tensor, expected: Tensor) -> Tensor:
        return self._alpha * ce * (expected.log() / self._log_reference) ** self._beta


class AdditiveLoss(CostLoss):
    """L = CE + lambda (E - reference) / reference, the form of the paper with E in units of the reference.

    Args:
        reference: a cost.
        weight: lambda.
    """

    def __init__(self, reference: float, *, weight: float = 0.1) -> None:
        self._reference = reference
        self._weight = weight

    def __call__(self, ce: Tensor, expected: Tensor) -> Tensor:
        return ce + self._weight * (expected - self._reference) / self._reference


class TargetLoss(CostLoss):
    """The constraint c = E / limit - 1 <= 0, by dual ascent on its augmented Lagrangian.

        L = CE + ( max(0, lambda + c)^2 - lambda^2 ) / 2        lambda <- max(0, lambda + eta c)

    The price of cost, max(0, lambda + c), rises while E is above the limit and falls while it is below, so that E
    settles at the limit or, if accuracy alone prefers less, lambda at 0. Without the quadratic part, L = CE +
    lambda c, E swings about the limit (Rockafellar, "Augmented Lagrange multiplier functions and duality in nonconvex
    programming", SIAM Journal on Control, 1974).

    The limit falls linearly from the first E to the target, which it reaches at the share `ARRIVAL` of the training. A
    constant limit would drive the price so high that gates close for good, far below the target, before they have been
    evaluated.

    Args:
        target: a cost.
        cheapest: of all architectures.
        rate: eta.

    Raises:
        UserError: even the cheapest architecture costs more than the target.
    """

    def __init__(self, target: float, *, cheapest: float, rate: float = 0.1) -> None:
        if target < cheapest:
            problem = f"{target:,.10g} is below the cheapest architecture's cost of {cheapest:,.10g}"
            raise UserError("supernet.strategy.target", problem, code="infeasible")
        self.target = target
        self._rate = rate
        self._start: tuple[float, float] | None = None
        self.limit = math.inf
        self.multiplier = 0.0

    def __call__(self, ce: Tensor, expected: Tensor) -> Tensor:
        price = (self.multiplier + expected / self.limit - 1).clamp(min=0)
        return ce + (price**2 - self.multiplier**2) / 2 if math.isfinite(self.limit) else ce

    def observe(self, expected: float, progress: float) -> None:
        """Updates the limit for this progress, and lambda."""
        begin, first = self._start = self._start or (progress, expected)
        share = 1.0 if progress >= ARRIVAL else (progress - begin) / (ARRIVAL - begin)
        self.limit = max(self.target, first + (self.target - first) * share)
        self.multiplier = max(0.0, self.multiplier + self._rate * (expected / self.limit - 1))

    def row(self) -> dict[str, float]:
        """`lambda`, and `limit` once it is finite."""
        return {"lambda": self.multiplier, **({"limit": self.limit} if math.isfinite(self.limit) else {})}

    def state_dict(self) -> dict[str, Any]:
        return {"lambda": self.multiplier, "limit": self.limit, "start": self._start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.multiplier, self.limit, self._start = state["lambda"], state["limit"], state["start"]


def cost_loss(
    name: CostLossName,
    costs: CostModel,
    region: Region,
    target: float | None,
    *,
    alpha: float,
    beta: float,
    weight: float,
    rate: float,
) -> CostLoss:
    """The loss of that name (see `ProxylessNAS`).

    Raises:
        UserError: it needs a target and has none, or one that cannot be reached.
    """
    if name == "none":
        if target is not None:
            allowed = ("multiplicative", "additive", "target")
            raise UserError("supernet.strategy.loss", "none ignores the target", code="conflict", allowed=allowed)
        return CostLoss()
    cheapest, highest = costs.cheapest(region), costs.most_expensive(region)
    if target is None:
        problem = f"loss {name} needs one, in {costs.unit}; architectures cost {cheapest:,.10g} to {highest:,.10g}"
        raise UserError("supernet.strategy.target", problem, code="missing")
    if name == "multiplicative":
        _above_one("the cheapest architecture's cost", cheapest)
        return MultiplicativeLoss(target, alpha=alpha, beta=beta)
    if name == "additive":
        return AdditiveLoss(target, weight=weight)
    return TargetLoss(target, cheapest=cheapest, rate=rate)


def _above_one(what: str, value: float) -> float:
    if not value > 1:
        problem = f"{what} is {value:g}, but the multiplicative loss takes its logarithm and needs more than 1; "
        raise UserError("supernet.strategy.target", problem + "use a smaller unit", code="out_of_range")
    return value
