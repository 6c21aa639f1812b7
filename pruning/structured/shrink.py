"""Shrink a dense network to a target, by a search on the true cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from espalier.nas.arguments import checked_arguments
from espalier.nas.copying import copied
from espalier.nas.errors import UserError
from espalier.pruning.structure import structure_of
from espalier.pruning.structured.blocks import layers_in, residual_blocks
from espalier.pruning.structured.discover import discover
from espalier.pruning.structured.groups import Group, Kind, Removed, Units, steps
from espalier.pruning.structured.importance import Importance, Magnitude
from espalier.pruning.structured.order import Order, Ratio, order, trial
from espalier.pruning.structured.removal import clear_caches
from espalier.pruning.structured.search import (
    CLOSE,
    Costs,
    Target,
    fewest_moves,
    with_a_smaller_last_step,
    without_needless_steps,
)
from espalier.pruning.structured.verify import Probe, difference_from_masked

FIRST: tuple[Kind, ...] = ("channels", "heads", "block")
LAST: Kind = "normalised"
"""Groups of this kind are used only if the target cannot be met without them."""
LARGEST_DIFFERENCE = 1e-3
"""Between the smaller network and the masked dense one, relative to the largest output: more is not rounding."""


@dataclass(frozen=True)
class Shrunk:
    """A smaller network, and what was removed.

    Attributes:
        model: the network, in the mode of the dense one and on its device; its weights are the dense network's.
        groups: all groups that were considered; those that stay dense come with the reason.
        structure: for `apply_structure`.
        before: cost of the dense network.
        after: cost of this network.
        difference: from the dense network with the removed units masked, relative to the largest output, on random
            inputs; never more than rounding.
        after_unrounded: where the cost is more than 3 % below the limit, the cost that widths that are no multiples of
            `round_to` would give; else None.
    """

    model: nn.Module
    groups: tuple[Group, ...]
    structure: dict[str, dict[str, Any]]
    before: float
    after: float
    difference: float
    after_unrounded: float | None = None

    @property
    def share(self) -> float:
        """The share of the cost that is left."""
        return self.after / self.before


@checked_arguments
def groups_of(
    model: nn.Module,
    example_shape: tuple[int, ...],
    *,
    round_to: PositiveInt = 8,
    least: Annotated[float, Field(ge=0, le=1)] = 0.1,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    depth: bool = False,
) -> list[Group]:
    """What can be removed from a network, and what cannot and why: the groups that `shrink` chooses from.

    Args:
        model: as in `shrink`.
        example_shape: as in `shrink`.
        round_to: as in `shrink`.
        least: as in `shrink`.
        include: as in `shrink`.
        exclude: as in `shrink`.
        depth: as in `shrink`.

    Raises:
        UserError: an option is out of range; a pattern matches no layer.
    """
    found = _found(model, example_shape, round_to=round_to, least=least, include=include, exclude=exclude, depth=depth)
    return _listed(model, found, Costs(model, example_shape, Target("macs", share=0.5)), {})


@checked_arguments
def shrink(
    model: nn.Module,
    example_shape: tuple[int, ...],
    target: Target,
    *,
    importance: Importance | None = None,
    ratio: Ratio = "global",
    round_to: PositiveInt = 8,
    least: Annotated[float, Field(ge=0, le=1)] = 0.1,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    depth: bool = False,
) -> Shrunk:
    """Remove channels, attention heads and, with `depth`, residual blocks, until the target is met.

    The steps of all groups are ordered by importance, and the smallest number of them that meets the target is found by
    bisection. A group stays dense if removing units from it gives other outputs than masking them in the dense network.
    Channels that a layer norm averages over are removed only if the target cannot be met otherwise.

    Args:
        model: left as it is.
        example_shape: of one input, `(channels, height, width)`.
        target: the limit on the cost.
        importance: scores the units; None is `Magnitude()`.
        ratio: remove the least important units of the whole network, or the same share of every group.
        round_to: widths become multiples of this, see `steps`.
        least: share of every group that always stays.
        include: patterns of layer names, see `discover`; the network's outputs always stay.
        exclude: patterns of layer names, see `discover`.
        depth: whole residual blocks may be removed, too.

    Raises:
        UserError: the target cannot be met (the nearest reachable cost is given); an option is out of range; a pattern
            matches no layer.
    """
    importance = importance or Magnitude()
    found = _found(model, example_shape, round_to=round_to, least=least, include=include, exclude=exclude, depth=depth)
    found.score(model, importance)
    costs = Costs(model, example_shape, target)
    limit = target.limit(costs.dense)
    removed, after = _chosen(found, costs, limit, ratio=ratio, additive=importance.additive)
    finer = None
    if after < CLOSE * limit and round_to > 1 and not callable(target.of):
        single = found.with_steps(round_to=1, least=least)
        finer = _chosen(single, costs, limit, ratio=ratio, additive=importance.additive)[1]
    if after > limit:
        raise UserError("target", _unreachable(target, after, costs.dense, found.groups), code="infeasible")
    smaller = costs.without(found.groups, removed)
    try:
        difference = difference_from_masked(model, smaller, found.groups, removed, _example(example_shape))
    except RuntimeError as error:
        problem = f"cannot be shrunk so far: the smaller network does not run ({' '.join(str(error).split())[:200]})"
        raise UserError("model", problem, code="unsupported") from error
    if not difference <= LARGEST_DIFFERENCE:
        problem = f"cannot be shrunk: the smaller network differs from the masked one by {difference:.1e}"
        raise UserError("model", problem, code="unsupported")
    return Shrunk(
        model=smaller,
        groups=tuple(_listed(model, found, costs, removed)),
        structure=structure_of(model, smaller),
        before=costs.dense,
        after=after,
        difference=difference,
        after_unrounded=finer,
    )


@dataclass
class _Found:
    """Groups with their steps and, once scored, the importance of their units."""

    groups: list[Units]
    step: dict[str, int]
    kept: dict[str, list[int]]
    scores: dict[str, Tensor]

    @property
    def prunable(self) -> list[Units]:
        return [units for units in self.groups if units.dense_because is None]

    def with_steps(self, *, round_to: int, least: float) -> _Found:
        """The same groups and scores with other steps."""
        step, kept = {}, {}
        for units in self.groups:
            step[units.name], kept[units.name] = steps(units, round_to=round_to, least=least)
        return _Found(self.groups, step, kept, self.scores)

    def score(self, model: nn.Module, importance: Importance) -> None:
        for index, units in enumerate(self.groups):
            if units.dense_because is not None:
                continue
            scores = importance(model, units)
            if scores is None:
                self.groups[index] = units.marked_dense("no importance score is defined for this group")
            elif not bool(scores.isfinite().all()):
                raise UserError(units.name, "its importance scores contain NaN or infinite values")
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
    clear_caches(model)
    plain = copied(model).cpu().float().eval()  # the example is in single precision
    groups = discover(plain, _example(example_shape), include=include, exclude=exclude)
    probe = Probe(plain, _example(example_shape))
    if depth:
        groups += residual_blocks(probe.model, probe.example, include=include, exclude=exclude)
    step, kept = {}, {}
    for index, units in enumerate(groups):
        step[units.name], kept[units.name] = steps(units, round_to=round_to, least=least)
        if units.dense_because is None and len(kept[units.name]) < 2:
            groups[index] = units.marked_dense(f"has {units.width} units, too few for a step")
    for even in (True, False):
        groups = probe.verified(groups, trial(groups, kept, even=even))
    return _Found(groups, step, kept, {})


def _chosen(found: _Found, costs: Costs, limit: float, *, ratio: Ratio, additive: bool) -> tuple[Removed, float]:
    """What is removed, and the cost after it: as little as the limit needs, or everything that can be removed."""
    removed: Removed = {}
    after = costs.dense
    unit_cost = {units.name: costs.of_unit(units) for units in found.prunable} if additive else None
    for kinds in (FIRST, (*FIRST, LAST)):
        groups = [units for units in found.prunable if units.kind in kinds]
        if after <= limit or not groups:
            continue
        moves = order(groups, found.kept, found.scores, ratio=ratio, unit_cost=unit_cost)

        def cost(number: int, moves: Order = moves) -> float:
            return costs(found.groups, moves.removed(number))

        def guess(number: int, moves: Order = moves) -> float:
            return costs.guess(found.groups, moves.removed(number))

        number, after = fewest_moves(cost, guess, len(moves.moves), limit, costs.dense)
        taken = moves.taken(number)
        if not callable(costs.of):

            def cost_of(taken: Mapping[str, int], moves: Order = moves) -> float:
                return costs(found.groups, moves.gone(taken))

            taken, after = without_needless_steps(moves, number, cost_of, after=after, limit=limit, dense=costs.dense)
            if after <= limit:
                taken, after = with_a_smaller_last_step(moves, number, taken, cost_of, after=after, limit=limit)
        removed = moves.gone(taken)
    return removed, after


def _unreachable(target: Target, nearest: float, before: float, groups: Sequence[Units]) -> str:
    name = target.of if isinstance(target.of, str) else "measured cost"
    asked = f"{target.share:g} of it" if target.share is not None else f"at most {target.most:g}"
    dense = sum(units.dense_because is not None for units in groups)
    return (
        f"{asked} ({name} {before:g}) cannot be reached: the nearest is {nearest:g}, {nearest / before:.3f} of it;"
        f" {dense} of {len(groups)} groups stay dense"
    )


def _listed(model: nn.Module, found: _Found, costs: Costs, removed: Removed) -> list[Group]:
    listed = []
    for units in found.groups:
        gone = removed.get(units.name, torch.zeros(units.width, dtype=torch.bool))
        layers = units.layers if units.kind != "block" else layers_in(model, units.name)
        listed.append(
            Group(
                name=units.name,
                kind=units.kind,
                layers=layers,
                width=units.width,
                kept=int((~gone).sum()),
                step=found.step[units.name],
                channels=units.channels,
                macs=costs.macs(layers),
                indices=tuple((~gone).nonzero().flatten().tolist()),
                dense_because=units.dense_because,
            )
        )
    return listed


def _example(shape: tuple[int, ...]) -> Tensor:
    """Two inputs: networks may treat a batch of one as a missing dimension."""
    return torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
