"""The blocks of a space's networks: parts that read one tensor and make one, and the few choices each depends on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import nn

from espalier.nas.choices import Joint
from espalier.nas.cost.layer_sites import full_gates
from espalier.nas.space import ABSENT, SearchSpace

Configuration = tuple[Joint, str]
"""What decides the block in a slot: one option of each of the slot's choices, and the state of their layers."""
Shape = tuple[int, ...]
States = Mapping[str, str]
"""The state of each choice's layers, see `espalier.nas.space.SearchSpace.states`."""


@dataclass(frozen=True)
class Block:
    """A part of a network.

    Attributes:
        key: shared by blocks that compute alike.
        family: shared by blocks of one kind and several sizes.
        module: the part alone, in evaluation mode.
        input_shape: without the batch.
        output_shape: without the batch.
        is_first: whether it reads the image.
        is_last: whether it computes the logits.
        ignores_input: whether it depends on nothing but the shape of its input.
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
    """A place in the networks of a space, filled by one of several blocks.

    Attributes:
        name: the name of the module that it belongs to.
        choices: the choices that decide which block it is.
        keys: the key of the block in each configuration; None where there is no block.
        dependencies: further choices, which decide the state.
    """

    name: str
    choices: tuple[str, ...]
    keys: Mapping[Configuration, str | None]
    dependencies: tuple[str, ...]


@dataclass(frozen=True)
class BlockPlan:
    """Which blocks the networks of a space consist of.

    Attributes:
        slots: in the order in which they were found.
        blocks: by key.
    """

    slots: Sequence[Slot]
    blocks: Mapping[str, Block]


def state_of(states: States, choices: Sequence[str]) -> str:
    """The state of a block that depends on these choices: ABSENT if one of them is absent, else all states joined."""
    found = sorted({states[name] for name in choices if name in states})
    return ABSENT if ABSENT in found else " ".join(found)


_known: WeakKeyDictionary[SearchSpace, dict[tuple[str, ...], list[tuple[Joint, States]]]] = WeakKeyDictionary()


def joint_states(space: SearchSpace, names: tuple[str, ...]) -> list[tuple[Joint, States]]:
    """Every joint option of some choices, with the states of a network that has it.

    The other choices have the options of `full_gates`, so that no block is missing on their account. The result is
    kept as long as the space: planning and every table of one space ask for the same thousands of states.

    Args:
        space: the space.
        names: the choices, in the order of the joint options.
    """
    known = _known.setdefault(space, {})
    if names not in known:
        full, choices = full_gates(space), space.choices()
        known[names] = [
            (joint, space.states(space.architecture({**full, **dict(zip(names, joint, strict=True))})))
            for joint in itertools.product(*(range(len(choices[name].options)) for name in names))
        ]
    return known[names]
