"""What leaves a network together: channels of several layers, an attention head, a whole residual block."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from espalier.pruning.structured.layers import Side

Kind = Literal["channels", "heads", "normalised", "block"]


@dataclass(frozen=True)
class Group:
    """Units that can be removed from the same layers, as plain data.

    Attributes:
        name: of its first layer, or of the block.
        kind: `channels`; `heads` of an attention; `normalised`, channels that a layer norm averages over, so that
            removing one changes what the others become; `block`, a residual block, of which the shortcut stays.
        layers: those that become smaller.
        width: units in the dense network.
        kept: units that stay.
        step: `width` goes down to multiples of this.
        channels: of the narrowest layer, in one unit.
        macs: multiply-accumulates for one image of all its layers' weights, in the dense network.
        indices: the units that stay.
        dense_because: why all stay, where nothing of the group can be removed; else None.
    """

    name: str
    kind: Kind
    layers: tuple[str, ...]
    width: int
    kept: int
    step: int
    channels: int
    macs: int
    indices: tuple[int, ...]
    dense_because: str | None = None

    def as_data(self) -> dict[str, Any]:
        """As JSON."""
        data = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}


@dataclass(frozen=True)
class Member:
    """A side of a layer and, for each of its channels, the unit it belongs to; -1 where to none of this group's."""

    side: Side
    unit_of: Tensor


@dataclass(frozen=True)
class Attribute:
    """A number in a module that follows the units that stay: `per_unit` for each."""

    module: str
    name: str
    per_unit: int


@dataclass(frozen=True)
class Units:
    """A group as it is removed.

    Attributes:
        name, kind, width: as in `Group`.
        members: where the units are; none for a block.
        channels: of the narrowest layer, in one unit.
        attributes: what else follows.
        dense_because: why nothing may be removed, where that is known already.
    """

    name: str
    kind: Kind
    width: int
    members: tuple[Member, ...]
    channels: int = 1
    attributes: tuple[Attribute, ...] = ()
    dense_because: str | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of what becomes smaller, each once."""
        return tuple(dict.fromkeys(member.side[0] for member in self.members)) or (self.name,)

    def but(self, reason: str) -> Units:
        """The same, to stay dense."""
        return dataclasses.replace(self, dense_because=reason)


Removed = dict[str, Tensor]
"""By the group's name, a boolean for each unit: True where it goes."""


def steps(units: Units, *, round_to: int, least: float) -> tuple[int, list[int]]:
    """The step, and the numbers of units that may stay, from all of them down.

    What stays is a multiple of `round_to` channels of the narrowest layer, counted in whole units: 8 channels are one
    head of 64, two groups of 4. Where fewer than two such steps fit, the step is the largest power of two with which
    two do: 12 channels go down to 8 and 4. At least one step stays, and the share `least`, of everything but blocks.
    """
    if units.kind == "block":
        return 1, [1, 0]
    step = round_to // math.gcd(round_to, units.channels)
    if 2 * step > units.width:
        step = 1 << (max(units.width // 2, 1).bit_length() - 1)
    floor = max(step, math.ceil(least * units.width - 1e-9))
    multiples = range((units.width - 1) // step * step, floor - 1, -step)
    return step, [units.width, *multiples]


def lowest_units(scores: Tensor, count: int) -> Tensor:
    """Mark the `count` lowest of the scores, of equal ones the first."""
    removed = torch.zeros(len(scores), dtype=torch.bool)
    removed[scores.argsort(stable=True)[:count]] = True
    return removed
