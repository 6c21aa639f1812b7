"""The blocks of a space's networks: parts that read one tensor and make one, and the few choices each depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from espalier.nas.space import ABSENT

Joint = tuple[int, ...]
Way = tuple[Joint, str]
"""Joint options of a slot's choices, and their state."""
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """A part of a network.

    Attributes:
        key: shared by blocks that compute alike.
        family: what blocks of one make and several sizes have in common.
        module: the part alone, in evaluation.
        input_shape, output_shape: without the batch.
        is_first: it reads the image.
        is_last: it makes the logits.
        ignores_input: it reads only how large its input is.
    """

    key: str
    family: str
    module: nn.Module = field(repr=False, compare=False)
    input_shape: Shape
    output_shape: Shape
    is_first: bool
    is_last: bool
    ignores_input: bool = False


@dataclass(frozen=True)
class Slot:
    """A place in the networks of a space where one of several blocks stands.

    Attributes:
        name: of the module that it belongs to.
        choices: those that decide which block.
        keys: of the block, for each joint option of these and their state (see `state_of`); None for no block.
        dependencies: further choices, which decide the state.
    """

    name: str
    choices: tuple[str, ...]
    keys: Mapping[Way, str | None]
    dependencies: tuple[str, ...]


@dataclass(frozen=True)
class BlockPlan:
    """Where the blocks of a space's networks stand. Attributes: slots: in order. blocks: by key."""

    slots: Sequence[Slot]
    blocks: Mapping[str, Block]


def state_of(states: Mapping[str, str], choices: Sequence[str]) -> str:
    """The state of a block of these choices, out of `SearchSpace.states`: ABSENT where one of them is, else joined."""
    found = sorted({states[name] for name in choices if name in states})
    return ABSENT if ABSENT in found else " ".join(found)
