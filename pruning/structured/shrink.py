"""A smaller network out of a dense one: the target is reached by search on the true count."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nas.cost import count
from nas.errors import UserError
from pruning.allocation.macs import layer_macs
from pruning.structure import structure_of
from pruning.structured.blocks import residual_blocks
from pruning.structured.discover import discover
from pruning.structured.groups import Group, Removed, Units, steps
from pruning.structured.importance import Importance, Magnitude
from pruning.structured.layers import WEIGHTED
from pruning.structured.order import Order, Ratio, halves, order
from pruning.structured.removal import forget, remove
from pruning.structured.trust import Probe, equal

LARGEST_DIFFERENCE = 1e-3
"""Between the smaller network and the masked dense one, relative to the largest output: more is no rounding."""


@dataclass(frozen=True)
class Target:
    """What the smaller network costs at most.

    Attributes:
        of: `macs` or `params`, as `nas.cost.count` has them, or a function that measures a network, such as its latency
            in ms; the network it is given is in evaluation mode, on the device of the dense one.
        share: of what the dense network has. most: instead, in the unit of what is measured.

    Raises:
        UserError: neither or both are given, or no network could meet it.
    """

    of: Literal["macs", "params"] | Callable[[nn.Module], float]
    share: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        if (self.share is None) == (self.most is None):
            raise UserError("target", "is a share of the dense network, or the most that is allowed: one of them")
        if self.share is not None and not 0 < self.share < 1:
            raise UserError("target", f"the share must be between 0 and 1, not {self.share:g}")
        if self.most is not None and not self.most > 0:
            raise UserError("target", f"what is allowed must be above 0, not {self.most:g}")


@dataclass(frozen=True)
class Shrunk:
    """A smaller network and how it came about.

    Attributes:
        model: the network, in the mode of the dense one and on its device; its weights are the dense network's.
        groups: what was looked at, those that stay dense with the reason. structure: for `apply_structure`.
        before, after: what the target is of, in the dense and in this network.
        difference: from the dense network with the removed units silent, relative to the largest output, on random
            inputs: rounding, or it would not be given.
    """

    model: nn.Module
    groups: tuple[Group, ...]
    structure: dict[str, dict[str, Any]]
    before: float
    after: float
    difference: float

    @property
    def share(self) -> float:
        """What is left of what the target is of."""
        return self.after / self.before


def groups_of(
    model: nn.Module,
    example_shape: tuple[int, ...],
    *,
    round_to: int = 8,
    least: float = 0.1,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    depth: bool = False,
) -> list[Group]:
    """What can be removed from a network, and what cannot and why: the groups that `shrink` chooses from.

    Args, Raises: as in `shrink`.
    """
    found = _found(model, example_shape, round_to=round_to, least=least, include=include, exclude=exclude, depth=depth)
    return _listed(model, example_shape, found, {})


def shrink(
    model: nn.Module,
    example_shape: tuple[int, ...],
    target: Target,
    *,
    importance: Importance | None = None,
    ratio: Ratio = "global",
    round_to: int = 8,
    least: float = 0.1,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    depth: bool = False,
) -> Shrunk:
    """Remove channels, attention heads and, with `depth`, residual blocks, until the target is met.

    Steps of all groups are put in an order by importance, and the shortest beginning of it that meets the target is
    found by bisection, so that the last step taken is the one that reaches it. Groups whose removal does not give
    what the dense network gives with these units silent stay dense. Channels that a layer norm averages over go only
    where the target cannot be met without.

    Args:
        model: left as it is. example_shape: of one input, `(channels, height, width)`.
        importance: `Magnitude()` where None. ratio: over the whole network, or the same in every group.
        round_to: widths become multiples of it, see `steps`. least: share of every group that stays at least.
        include, exclude: patterns of layer names, see `discover`; the network's outputs stay in any case.
        depth: whole residual blocks may go, too.

    Raises:
        UserError: the target cannot be met: the nearest that can is named; an option is out of range; a pattern
            matches no layer.
    """
    importance = importance or Magnitude()
    found = _found(model, example_shape, round_to=round_to, least=least, include=include, exclude=exclude, depth=depth)
    found.score(model, importance)
    measure = _measure(model, example_shape, target)
    before = measure.dense
    limit = before * target.share if target.share is not None else float(target.most or 0)
    costs = _unit_costs(model, example_shape, found, target) if importance.additive else None
    nearest, chosen = before, None if before > limit else (Order([], {}, {}), 0, before)
    for kinds in (("channels", "heads", "block"), ("channels", "heads", "block", "normalised")):
        if chosen is not None:
            break
        groups = [units for units in found.prunable if units.kind in kinds]
        steps_ = order(groups, found.kept, found.scores, ratio=ratio, unit_cost=costs)
        number, after = _shortest(lambda k, o=steps_: measure(found.groups, o.removed(k)), len(steps_.moves), limit)  # type: ignore[misc]
        nearest = min(nearest, after)
        if after <= limit:
            chosen = (steps_, number, after)
    if chosen is None:
        raise UserError("target", _unreachable(target, nearest, before, found.groups))
    steps_, number, after = chosen
    removed = steps_.removed(number)
    smaller = measure.without(found.groups, removed)
    difference = equal(model, smaller, found.groups, removed, _example(example_shape))
    if not difference <= LARGEST_DIFFERENCE:
        raise UserError("model", f"cannot be shrunk: what is left differs from the masked network by {difference:.1e}")
    return Shrunk(
        model=smaller,
        groups=tuple(_listed(model, example_shape, found, removed)),
        structure=structure_of(model, smaller),
        before=before,
        after=after,
        difference=difference,
    )


@dataclass
class _Found:
    """Groups with their steps and, once scored, the worth of their units."""

    groups: list[Units]
    step: dict[str, int]
    kept: dict[str, list[int]]
    scores: dict[str, Tensor]

    @property
    def prunable(self) -> list[Units]:
        return [units for units in self.groups if units.dense_because is None]

    def score(self, model: nn.Module, importance: Importance) -> None:
        for index, units in enumerate(self.groups):
            if units.dense_because is not None:
                continue
            scores = importance(model, units)
            if scores is None:
                self.groups[index] = units.but("the importance says nothing of it")
            elif not bool(scores.isfinite().all()):
                raise UserError(units.name, "the importance of its units is not a finite number")
            else:
                self.scores[units.name] = scores


def _found(
    model: nn.Module,
    example_shape: tuple[int, ...],
    *,
    round_to: int,
    least: float,
    include: Sequence[str],
    exclude: Sequence[str],
    depth: bool,
) -> _Found:
    if round_to < 1:
        raise UserError("round_to", f"must be at least 1, not {round_to}")
    if not 0 <= least <= 1:
        raise UserError("least", f"must be between 0 and 1, not {least:g}")
    forget(model)
    plain = copy.deepcopy(model).cpu().eval()
    groups = discover(plain, _example(example_shape), include=include, exclude=exclude)
    probe = Probe(plain, _example(example_shape))
    if depth:
        groups += residual_blocks(probe.model, probe.example, include=include, exclude=exclude)
    step, kept = {}, {}
    for index, units in enumerate(groups):
        step[units.name], kept[units.name] = steps(units, round_to=round_to, least=least)
        if units.dense_because is None and len(kept[units.name]) < 2:
            groups[index] = units.but(f"{units.width} units, which no step makes fewer")
    return _Found(probe.trusted(groups, halves(groups, kept)), step, kept, {})


class _Measure:
    """What a network costs without some units."""

    def __init__(self, dense: nn.Module, measure: Callable[[nn.Module], float], *, on_meta: bool) -> None:
        self._dense = dense
        self._start = copy.deepcopy(dense).to("meta") if on_meta else dense
        self._measure = measure
        self.dense = measure(self._start if on_meta else copy.deepcopy(dense).eval())

    def __call__(self, groups: Sequence[Units], removed: Removed) -> float:
        smaller = copy.deepcopy(self._start)
        remove(smaller, groups, removed)
        return self._measure(smaller.eval())

    def without(self, groups: Sequence[Units], removed: Removed) -> nn.Module:
        smaller = copy.deepcopy(self._dense)
        remove(smaller, groups, removed)
        return smaller


def _measure(model: nn.Module, example_shape: tuple[int, ...], target: Target) -> _Measure:
    if callable(target.of):
        return _Measure(model, target.of, on_meta=False)
    quantity = target.of
    return _Measure(model, lambda net: float(getattr(count(net, example_shape), quantity)), on_meta=True)


def _shortest(measure: Callable[[int], float], longest: int, limit: float) -> tuple[int, float]:
    """The least number of moves after which `measure` is at most `limit`, and what it is then.

    Where even all moves are not enough, all, and what it is then. A measurement that is noisy is taken as it was when
    the bisection asked for it: what is returned was within the limit.
    """
    after = measure(longest)
    if after > limit:
        return longest, after
    low, high = 0, longest
    while high - low > 1:
        middle = (low + high) // 2
        value = measure(middle)
        if value <= limit:
            high, after = middle, value
        else:
            low = middle
    return high, after


def _unit_costs(model: nn.Module, example_shape: tuple[int, ...], found: _Found, target: Target) -> dict[str, float]:
    """About how much one unit of each group costs, by the weights that read and make it."""
    uses = layer_macs(model, example_shape)
    costs = {}
    for units in found.groups:
        if units.kind == "block":
            inside = [f"{units.name}.{name}".rstrip(".") for name, _ in model.get_submodule(units.name).named_modules()]
            costs[units.name] = sum(_cost(model, layer, uses, target) for layer in inside)
            continue
        costs[units.name] = sum(
            _cost(model, name, uses, target) / len(member.unit_of) * int((member.unit_of >= 0).sum()) / units.width
            for member in units.members
            for name, _ in [member.side]
        )
    return costs


def _cost(model: nn.Module, layer: str, uses: dict[str, float], target: Target) -> float:
    """A layer's multiply-accumulates, or its weights."""
    weight = dict(model.named_parameters()).get(f"{layer}.weight")
    if weight is None:
        return 0.0
    return weight.numel() * (1.0 if target.of == "params" else uses.get(f"{layer}.weight", 0.0))


def _unreachable(target: Target, nearest: float, before: float, groups: Sequence[Units]) -> str:
    name = target.of if isinstance(target.of, str) else "measured cost"
    asked = f"{target.share:g} of it" if target.share is not None else f"at most {target.most:g}"
    dense = sum(units.dense_because is not None for units in groups)
    return (
        f"{asked} ({name} {before:g}) cannot be reached: the nearest is {nearest:g}, {nearest / before:.3f} of it;"
        f" {dense} of {len(groups)} groups stay dense"
    )


def _listed(model: nn.Module, example_shape: tuple[int, ...], found: _Found, removed: Removed) -> list[Group]:
    uses = layer_macs(model, example_shape)
    listed = []
    for units in found.groups:
        gone = removed.get(units.name, torch.zeros(units.width, dtype=torch.bool))
        layers = units.layers
        if units.kind == "block":
            layers = tuple(
                f"{units.name}.{name}"
                for name, layer in model.get_submodule(units.name).named_modules()
                if isinstance(layer, WEIGHTED)
            )
        weights = dict(model.named_parameters())
        macs = sum(
            uses.get(f"{name}.weight", 0.0) * weights[f"{name}.weight"].numel()
            for name in layers
            if f"{name}.weight" in weights
        )
        listed.append(
            Group(
                name=units.name,
                kind=units.kind,
                layers=layers,
                width=units.width,
                kept=int((~gone).sum()),
                step=found.step[units.name],
                channels=units.channels,
                macs=math.floor(macs),
                indices=tuple((~gone).nonzero().flatten().tolist()),
                dense_because=units.dense_because,
            )
        )
    return listed


def _example(shape: tuple[int, ...]) -> Tensor:
    """Two inputs: networks may take a batch of one for a dimension that is not there."""
    return torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
