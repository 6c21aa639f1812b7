"""Find how many removals meet a target: bisection on the true cost of the smaller network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat
from torch import nn

from espalier.nas.arguments import checked_arguments
from espalier.nas.copying import copied
from espalier.nas.cost.count import count
from espalier.nas.errors import UserError
from espalier.pruning.allocation.macs import layer_macs
from espalier.pruning.structured.blocks import layers_in
from espalier.pruning.structured.groups import Removed, Units
from espalier.pruning.structured.order import Order
from espalier.pruning.structured.removal import remove

SLACK = 0.01
"""As a share of the dense network's cost: below this distance to the limit, no step is taken back."""
CLOSE = 0.97
"""A cost below this share of the limit is further below it than asked for."""
EXCHANGED = 8
"""Exchanges are tried between so many groups; each costs a copy of the network without numbers."""


@checked_arguments
@dataclass(frozen=True)
class Target:
    """The limit on the cost of the smaller network.

    Attributes:
        of: `macs` or `params`, as counted by `nas.cost.count`, or a function that measures a network, such as its
            latency in ms; the network is passed in evaluation mode, on the device of the dense one.
        share: limit as a share of the dense network's cost.
        most: limit in the unit of the cost, instead of a share.

    Raises:
        UserError: neither or both limits are given, or one is out of range.
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
        """The largest allowed cost, if the dense network costs `dense`."""
        return self.most if self.most is not None else dense * (self.share or 0)


class Costs:
    """The cost of a network without some units.

    Args:
        model: the dense network.
        example_shape: of one input.
        target: says which cost.
    """

    def __init__(self, model: nn.Module, example_shape: tuple[int, ...], target: Target) -> None:
        self._model, self._shape, self.of = model, example_shape, target.of
        self._meta = copied(model).to("meta").eval().requires_grad_(requires_grad=False)
        self._uses = layer_macs(model, example_shape)
        self.dense = self._measure(copied(model).eval() if callable(target.of) else self._meta)

    def without(self, groups: Sequence[Units], removed: Removed) -> nn.Module:
        """The smaller network, with the dense one's weights and in its mode."""
        smaller = copied(self._model)
        remove(smaller, groups, removed)
        return smaller

    def __call__(self, groups: Sequence[Units], removed: Removed) -> float:
        """The true cost of the smaller network."""
        if callable(self.of):
            return self._measure(self.without(groups, removed).eval())
        return self._measure(self._on_meta(groups, removed))

    def guess(self, groups: Sequence[Units], removed: Removed) -> float:
        """An estimate, from the weights alone, of the share of its cost that the network keeps."""
        return self._by_weights(self._on_meta(groups, removed)) / self._by_weights(self._meta)

    def of_unit(self, units: Units) -> float:
        """An estimate of the cost of one unit, from the weights that produce and read it."""
        if units.kind == "block":
            return sum(map(self.of_layer, layers_in(self._model, units.name)))
        return sum(
            self.of_layer(member.side[0]) * float((member.unit_of >= 0).float().mean()) / units.width
            for member in units.members
        )

    def of_layer(self, name: str) -> float:
        """A layer's multiply-accumulates, or its number of weights if the target is on parameters."""
        weight = f"{name}.weight"
        if weight not in self._uses:
            return 0.0
        numel = self._meta.get_parameter(weight).numel()
        return numel * (1.0 if self.of == "params" else self._uses[weight])

    def macs(self, layers: Sequence[str]) -> int:
        """Multiply-accumulates of the layers' weights in the dense network."""
        weights = [f"{name}.weight" for name in layers if f"{name}.weight" in self._uses]
        return round(sum(self._uses[name] * self._meta.get_parameter(name).numel() for name in weights))

    def _measure(self, model: nn.Module) -> float:
        if callable(self.of):
            return float(self.of(model))
        if self.of == "params":
            return float(sum(parameter.numel() for parameter in model.parameters()))
        return float(count(model, self._shape).macs)

    def _on_meta(self, groups: Sequence[Units], removed: Removed) -> nn.Module:
        smaller = copied(self._meta)
        remove(smaller, groups, removed)
        return smaller

    def _by_weights(self, model: nn.Module) -> float:
        if self.of == "params":
            return float(sum(parameter.numel() for parameter in model.parameters()))
        weights = dict(model.named_parameters())
        return sum(uses * weights[name].numel() for name, uses in self._uses.items() if name in weights)


def without_needless_steps(
    moves: Order,
    number: int,
    cost: Callable[[Mapping[str, int]], float],
    *,
    after: float,
    limit: float,
    dense: float,
) -> tuple[dict[str, int], float]:
    """Take back steps that the limit does not need, the most important first.

    The last move may have been a large one, which makes earlier ones unnecessary.

    Args:
        moves: the order of removals.
        number: how many of the moves reach the limit.
        cost: the cost after these numbers of steps of each group.
        after: the cost after these moves.
        limit: the largest allowed cost.
        dense: the cost of the dense network.

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


def with_a_smaller_last_step(
    moves: Order,
    number: int,
    taken: dict[str, int],
    cost: Callable[[Mapping[str, int]], float],
    *,
    after: float,
    limit: float,
) -> tuple[dict[str, int], float]:
    """Exchange one step for a cheaper one of another group, as long as that comes closer to the limit.

    One step of a group with a coarse step may overshoot the limit by far. The most important steps that were taken are
    tried against the least important ones that were not, so that importance still decides. Blocks stay as they are.

    Args:
        moves: the order of removals.
        number: how many of the moves reach the limit.
        taken: the steps taken of each group; after them, no single step can be taken back.
        cost: the cost after these numbers of steps of each group.
        after: the cost after `taken`.
        limit: the largest allowed cost.

    Returns:
        The steps taken of each group, and the cost.
    """
    while after < CLOSE * limit:
        best: tuple[float, dict[str, int]] | None = None
        channels = [name for name in moves.moves if moves.kept[name][-1]]
        last = [name for name in dict.fromkeys(reversed(moves.moves[:number])) if name in channels and taken[name]]
        following = [name for name in dict.fromkeys(moves.moves[number:]) if name in channels]
        for back, name in itertools.product(last[:EXCHANGED], following[:EXCHANGED]):
            if name != back and taken[name] + 1 < len(moves.kept[name]):
                other = taken | {back: taken[back] - 1, name: taken[name] + 1}
                value = cost(other)
                if after < value <= limit and (best is None or value > best[0]):
                    best = value, other
        if best is None:
            break
        after, taken = best
    return taken, after


def fewest_moves(
    cost: Callable[[int], float], guess: Callable[[int], float], longest: int, limit: float, dense: float
) -> tuple[int, float]:
    """The smallest number of moves after which `cost` is at most `limit`, and that cost.

    If even all moves are not enough: all of them, and the cost after them. `guess` gives the starting point. From there
    the stride doubles until the limit lies between two probes, and the interval between them is bisected. A noisy cost
    is measured only once for each number of moves, so that the returned cost was within the limit.

    Args:
        cost: the cost after a number of moves; it decreases with the number.
        guess: an estimate of the share of the cost that is left.
        longest: the number of all moves.
        limit: the largest allowed cost.
        dense: the cost after no move.
    """
    low, high = 0, longest
    while high - low > 1:  # by the guess, `low` moves are too few and `high` are enough
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
