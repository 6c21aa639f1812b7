"""How far along an order of removals a target is met: bisection on what the smaller network really costs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat
from torch import nn

from espalier.nas.arguments import checked_arguments
from espalier.nas.cost.count import count
from espalier.nas.errors import UserError
from espalier.pruning.allocation.macs import layer_macs
from espalier.pruning.structured.blocks import layers_in
from espalier.pruning.structured.groups import Removed, Units
from espalier.pruning.structured.order import Order
from espalier.pruning.structured.removal import remove

SLACK = 0.01
"""Share of the dense network's cost that is not worth looking for steps to take back."""


@checked_arguments
@dataclass(frozen=True)
class Target:
    """What the smaller network costs at most.

    Attributes:
        of: `macs` or `params`, as `nas.cost.count` has them, or a function that measures a network, such as its latency
            in ms; the network it is given is in evaluation mode, on the device of the dense one.
        share: of what the dense network has.
        most: instead, in the unit of what is measured.

    Raises:
        UserError: neither or both are given, or no network could meet it.
    """

    of: Literal["macs", "params"] | Callable[[nn.Module], float]
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    most: PositiveFloat | None = None

    def __post_init__(self) -> None:
        if self.share is None and self.most is None:
            raise UserError("target", "needs a share of the dense network's cost, or a limit (most)", code="missing")
        if self.share is not None and self.most is not None:
            raise UserError("target", "is given twice, as a share and as a limit (most)", code="conflict")

    def limit(self, dense: float) -> float:
        """The most that is allowed, where the dense network costs `dense`."""
        return self.most if self.most is not None else dense * (self.share or 0)


class Costs:
    """What a network costs without some units.

    Args:
        model: the dense network.
        example_shape: of one input.
        target: what is measured.
    """

    def __init__(self, model: nn.Module, example_shape: tuple[int, ...], target: Target) -> None:
        self._model, self._shape, self.of = model, example_shape, target.of
        self._meta = copy.deepcopy(model).to("meta").eval().requires_grad_(requires_grad=False)
        self._uses = layer_macs(model, example_shape)
        self.dense = self._measure(copy.deepcopy(model).eval() if callable(target.of) else self._meta)

    def without(self, groups: Sequence[Units], removed: Removed) -> nn.Module:
        """The smaller network, with the dense one's weights and in its mode."""
        smaller = copy.deepcopy(self._model)
        remove(smaller, groups, removed)
        return smaller

    def __call__(self, groups: Sequence[Units], removed: Removed) -> float:
        """What the smaller network really costs."""
        if callable(self.of):
            return self._measure(self.without(groups, removed).eval())
        return self._measure(self._on_meta(groups, removed))

    def guess(self, groups: Sequence[Units], removed: Removed) -> float:
        """About what share of its cost the network keeps, by the weights alone."""
        return self._by_weights(self._on_meta(groups, removed)) / self._by_weights(self._meta)

    def of_unit(self, units: Units) -> float:
        """About how much one unit costs, by the weights that make it and read it."""
        if units.kind == "block":
            return sum(map(self.of_layer, layers_in(self._model, units.name)))
        return sum(
            self.of_layer(member.side[0]) * float((member.unit_of >= 0).float().mean()) / units.width
            for member in units.members
        )

    def of_layer(self, name: str) -> float:
        """A layer's multiply-accumulates, or its weights where the target is of parameters."""
        weight = f"{name}.weight"
        if weight not in self._uses:
            return 0.0
        numel = self._meta.get_parameter(weight).numel()
        return numel * (1.0 if self.of == "params" else self._uses[weight])

    def macs(self, layers: Sequence[str]) -> int:
        """Multiply-accumulates of layers' weights, in the dense network."""
        weights = [f"{name}.weight" for name in layers if f"{name}.weight" in self._uses]
        return round(sum(self._uses[name] * self._meta.get_parameter(name).numel() for name in weights))

    def _measure(self, model: nn.Module) -> float:
        if callable(self.of):
            return float(self.of(model))
        if self.of == "params":
            return float(sum(parameter.numel() for parameter in model.parameters()))
        return float(count(model, self._shape).macs)

    def _on_meta(self, groups: Sequence[Units], removed: Removed) -> nn.Module:
        smaller = copy.deepcopy(self._meta)
        remove(smaller, groups, removed)
        return smaller

    def _by_weights(self, model: nn.Module) -> float:
        if self.of == "params":
            return float(sum(parameter.numel() for parameter in model.parameters()))
        weights = dict(model.named_parameters())
        return sum(uses * weights[name].numel() for name, uses in self._uses.items() if name in weights)


def given_back(
    moves: Order,
    number: int,
    cost: Callable[[Mapping[str, int]], float],
    *,
    after: float,
    limit: float,
    dense: float,
) -> tuple[dict[str, int], float]:
    """Take steps back, the most important first, while the limit is kept without them: the last move may have been a
    large one, which makes earlier ones needless.

    Args:
        number: the moves that reach the limit.
        cost: after so many steps of each group.
        after: after these moves.

    Returns:
        The steps taken of each group, and the cost.
    """
    taken = moves.taken(number)
    tight: set[str] = set()
    for name in reversed(moves.moves[:number]):
        if limit - after <= SLACK * dense:
            break
        if name in tight:
            continue
        less = taken | {name: taken[name] - 1}
        value = cost(less)
        if value <= limit:
            taken, after = less, value
        else:
            tight.add(name)
    return taken, after


def shortest(
    cost: Callable[[int], float], guess: Callable[[int], float], longest: int, limit: float, dense: float
) -> tuple[int, float]:
    """The least number of moves after which `cost` is at most `limit`, and what it is then.

    Where even all moves are not enough: all, and what it is then. `guess`, the share that is left, says where to begin;
    from there on steps double until the limit lies between two of them, and what lies between is bisected. A noisy cost
    is taken as it was when it was asked for: what is returned was within the limit.

    Args:
        cost, guess: after so many moves; they fall as moves grow.
        longest: all moves.
        dense: the cost after none.
    """
    low, high = 0, longest
    while high - low > 1:  # low is above the limit, high is at most there, by the guess
        middle = (low + high) // 2
        low, high = (low, middle) if guess(middle) * dense <= limit else (middle, high)
    start, after = high, cost(high)
    low, stride = 0, 1
    if after <= limit:
        while high > 1:
            probe = max(high - stride, 1)
            value = cost(probe)
            if value > limit:
                low = probe
                break
            high, after, stride = probe, value, 2 * stride
    else:
        low = start
        while after > limit:
            if low == longest:
                return longest, after
            high = min(low + stride, longest)
            after, stride = cost(high), 2 * stride
            low = high if after > limit else low
    while high - low > 1:
        middle = (low + high) // 2
        value = cost(middle)
        if value <= limit:
            high, after = middle, value
        else:
            low = middle
    return high, after
