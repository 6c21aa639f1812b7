"""The blocks of a space's networks: parts that read one tensor and make one, and the few choices each depends on.

A network is cut where choices begin and end: a layer choice with the addition of its input around it, a block that a
depth may leave out (at its additions cut again), elastic layers with what follows them. Blocks that compute alike on
equal shapes share a key, so that each has to be measured once. What depends on no choice is in no block: every network
has it.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import fx
from torch.fx.passes.shape_prop import ShapeProp

from espalier.nas.architecture import Architecture
from espalier.nas.choices import Choice, InputChoice, LayerChoice
from espalier.nas.cost.block_extraction import extract_block, split_at_additions
from espalier.nas.cost.block_owners import BlockOwners
from espalier.nas.cost.blocks import Block, BlockPlan, Slot, Way, state_of
from espalier.nas.cost.layer_sites import first_nonzero
from espalier.nas.errors import UserError
from espalier.nas.space import ABSENT, SearchSpace

MAX_JOINTS = 1000
"""Joint options of one slot; beyond that nobody waits for a table."""


def block_plan(space: SearchSpace) -> BlockPlan:
    """The slots and blocks of a space.

    Raises:
        UserError: a block depends on choices with too many joint options, or no block depends on a choice.
    """
    return _Planner(copy.deepcopy(space).cpu().eval()).plan()


class _Planner:
    """Cuts networks of a space until the block of every joint option of every slot is known, in each state."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._choices = space.choices()
        self._between = {name: choice for name, choice in self._choices.items() if isinstance(choice, InputChoice)}
        self._owners = BlockOwners(space)
        self._names: dict[str, tuple[str, ...]] = {}  # the choices of each slot
        self._keys: dict[str, dict[Way, str | None]] = {}
        self._blocks: dict[str, Block] = {}
        self._ways: dict[tuple[str, ...], dict[Way, dict[str, int]]] = {}
        self._default = {name: _default(choice) for name, choice in self._choices.items()}

    def plan(self) -> BlockPlan:
        self._cut(self._default)
        for index in range(max(len(choice.options) for choice in self._choices.values())):
            self._cut({name: min(index, len(choice.options) - 1) for name, choice in self._choices.items()})
        while missing := [(slot, way, gates) for slot in self._names for way, gates in self._missing(slot)]:
            wanted: dict[str, int] = {}
            for _, _, gates in missing:
                if all(wanted.get(name, index) == index for name, index in gates.items()):
                    wanted |= gates
            self._cut({**self._default, **wanted})
            slot, way, _ = missing[0]
            self._keys[slot].setdefault(way, None)
        self._check()
        slots = [Slot(slot, names, self._keys[slot], self._dependencies(slot)) for slot, names in self._names.items()]
        return BlockPlan(slots, self._blocks)

    def _dependencies(self, slot: str) -> tuple[str, ...]:
        names = self._names[slot]
        dependencies = {other for name in names for other in self._space.dependencies(name)}
        dependencies = dependencies.union(self._owners.conditions_of(slot)).difference(names)
        return tuple(name for name in self._choices if name in dependencies)

    def _check(self) -> None:
        met = {name for slot, names in self._names.items() for name in (*names, *self._dependencies(slot))}
        for name, choice in self._choices.items():
            if name not in met and not (isinstance(choice, InputChoice) and choice.edges) and len(choice.options) > 1:
                problem = f"costs are added up block by block, and no block depends on the {type(choice).__name__}"
                raise UserError("space", f"{problem} {name!r}", code="unsupported")

    def _missing(self, slot: str) -> Iterator[tuple[Way, dict[str, int]]]:
        """The joint options and states of which the block is not known, with gates that have them."""
        names = self._names[slot]
        if names not in self._ways:
            self._ways[names] = self._find_ways(names)
        return ((way, gates) for way, gates in self._ways[names].items() if way not in self._keys[slot])

    def _find_ways(self, names: Sequence[str]) -> dict[Way, dict[str, int]]:
        dependencies = {other for name in names for other in self._space.dependencies(name)}.difference(names)
        ways: dict[Way, dict[str, int]] = {}
        for gates, states in self._states_of(
            tuple(name for name in self._choices if name in dependencies.union(names))
        ):
            way = tuple(gates[name] for name in names), state_of(states, names)
            if way[1] != ABSENT:
                ways.setdefault(way, gates | self._keeping(names))
        return ways

    @functools.cache  # noqa: B019 - lives no longer than its plan
    def _states_of(self, names: tuple[str, ...]) -> list[tuple[dict[str, int], Mapping[str, str]]]:
        """Gates of all joint options of some choices, and the states of a network with these and the default ones."""
        joints = itertools.product(*(range(len(self._choices[name].options)) for name in names))
        every = [dict(zip(names, joint, strict=True)) for joint in joints]
        return [(gates, self._space.states(self._space.architecture({**self._default, **gates}))) for gates in every]

    def _keeping(self, names: Iterable[str]) -> dict[str, int]:
        """Of the choices between edges, options that keep these edges."""
        return {
            node: next(i for i, subset in enumerate(choice.subsets) if name in {choice.edges[j] for j in subset})
            for name in names
            for node, choice in self._between.items()
            if choice.edges and name in choice.edges
        }

    def _states(self, gates: Mapping[str, int]) -> dict[str, str]:
        """Also absent are the edges that are not kept."""
        dropped = {
            edge
            for node, choice in self._between.items()
            for index, edge in enumerate(choice.edges or ())
            if index not in choice.subsets[gates[node]]
        }
        return {**self._space.states(self._space.architecture(gates)), **dict.fromkeys(dropped, ABSENT)}

    def _cut(self, gates: Mapping[str, int]) -> None:
        """Cut one network, and note which blocks stand where."""
        architecture = self._space.architecture(gates)
        states = self._states(gates)
        found: dict[str, Block] = {}
        for slot, nodes in self._parts(architecture):
            names = {name for node in nodes for name in self._owners.choices_of(node)}.union(self._names.get(slot, ()))
            if not names:
                continue
            self._note_choices(slot, names)
            label = "/".join(f"{architecture[name]}" for name in self._names[slot])
            words = state_of(states, self._names[slot]).split()
            family = self._owners.family(slot, label)
            block = extract_block(nodes, " ".join([label, *words]), family, words)
            if block is not None:
                self._blocks.setdefault(block.key, block)
                found[slot] = block
        for slot, own in self._names.items():
            state = state_of(states, own)
            if state != ABSENT:
                way = tuple(gates[name] for name in own), state
                self._keys[slot][way] = found[slot].key if slot in found else None

    def _note_choices(self, slot: str, names: set[str]) -> None:
        known = self._names.get(slot, ())
        if names <= set(known):
            return
        self._names[slot] = tuple(name for name in self._choices if name in names.union(known))
        self._keys[slot] = {}  # what was seen was seen of fewer choices
        joints = math.prod(len(self._choices[name].options) for name in self._names[slot])
        if joints > MAX_JOINTS:
            raise UserError(
                "space", f"{joints:,} blocks can stand at {slot}, too many to measure each", code="unsupported"
            )

    def _parts(self, architecture: Architecture) -> Iterator[tuple[str, list[fx.Node]]]:
        """The slots of a network by name, and their nodes."""
        network = self._space.build(architecture, weights="inherited")
        network.graph.eliminate_dead_code()
        with torch.no_grad():  # on the meta device this takes many times as long
            ShapeProp(network).propagate(torch.zeros((1, *self._space.input_shape)))
        groups: dict[str, list[fx.Node]] = {}
        before, stretches = None, 0
        for node in network.graph.nodes:
            if node.op in ("placeholder", "output", "get_attr"):
                continue
            owner = self._owners.of(node)
            stretches += owner is None and before is not None
            groups.setdefault(owner or f"rest {stretches}", []).append(node)
            before = owner
        for owner, nodes in groups.items():
            parts = list(split_at_additions(nodes)) if self._owners.is_cut(owner) else [nodes]
            for index, part in enumerate(parts, start=1):
                yield f"{owner} {index}" if len(parts) > 1 else owner, part


def _default(choice: Choice) -> int:
    """An option by which everything that can be there is."""
    return first_nonzero(choice) if isinstance(choice, LayerChoice) else len(choice.options) - 1
