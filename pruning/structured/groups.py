"""What must be removed together: channels of several layers, an attention head, a whole residual block."""

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
        name: name of its first layer, or of the block.
        kind: `channels`; `heads` of an attention; `normalised`, channels that a layer norm averages over, so that
            removing one changes the others; `block`, a residual block, whose shortcut stays.
        layers: names of the layers that become smaller.
        width: number of units in the dense network.
        kept: number of units that stay.
        step: `width` is reduced to multiples of this.
        channels: channels of the narrowest layer in one unit.
        macs: multiply-accumulates of all its layers' weights for one image, in the dense network.
        indices: the units that stay.
        dense_because: why nothing of the group can be removed; None if something can.
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
        """As plain JSON types."""
        data = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}


@dataclass(frozen=True)
class Member:
    """A side of a layer and, for each of its channels, the unit it belongs to; -1 for none of this group."""

    side: Side
    unit_of: Tensor


@dataclass(frozen=True)
class Attribute:
    """A number stored in a module that depends on the kept units: `per_unit` for each of them."""

    module: str
    name: str
    per_unit: int


@dataclass(frozen=True)
class Units:
    """A group with everything needed to remove units from it.

    Attributes:
        name: as in `Group`.
        kind: as in `Group`.
        width: as in `Group`.
        members: the layer sides that the units are on; none for a block.
        channels: channels of the narrowest layer in one unit.
        attributes: numbers in modules that depend on the kept units.
        dense_because: why nothing may be removed, if that is already known.
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
        """Names of the layers that become smaller, each once."""
        return tuple(dict.fromkeys(member.side[0] for member in self.members)) or (self.name,)

    def marked_dense(self, reason: str) -> Units:
        """The same group, marked as one that must stay dense, with the reason."""
        return dataclasses.replace(self, dense_because=reason)


Removed = dict[str, Tensor]
"""By the group's name, a boolean for each unit: True if it is removed."""


def steps(units: Units, *, round_to: int, least: float) -> tuple[int, list[int]]:
    """The step, and the numbers of units that may stay, in descending order from all of them.

    What stays is a multiple of `round_to` channels of the narrowest layer, rounded to whole units: 8 channels are one
    head of 64, or two groups of 4. If fewer than two such steps fit, the step is the largest power of two that fits
    twice: 12 channels are reduced to 8 and 4. Except for blocks, at least one step and the share `least` stay.
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
    """Mark the `count` lowest scores; the first of equal ones."""
    removed = torch.zeros(len(scores), dtype=torch.bool)
    removed[scores.argsort(stable=True)[:count]] = True
    return removed
