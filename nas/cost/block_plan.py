"""Finding the blocks of a space's networks, by cutting networks until the block of every configuration is known.

A network is cut where choices begin and end: around a layer choice together with the addition of its input, around a
block that a depth may leave out (and inside it at its additions), around elastic layers together with what follows
them. Blocks that compute alike on equal shapes share a key, so that each has to be measured once. Parts that depend on
no choice are in no block: every network has them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import fx
from torch.fx.passes.shape_prop import ShapeProp

from espalier.nas.architecture import Architecture
from espalier.nas.choices import InputChoice
from espalier.nas.cost.block_extraction import extract_block, split_at_additions
from espalier.nas.cost.block_owners import BlockOwners
from espalier.nas.cost.blocks import Block, BlockPlan, Configuration, Slot, States, joint_states, state_of
from espalier.nas.cost.layer_sites import full_gates
from espalier.nas.errors import UserError
from espalier.nas.space import ABSENT, SearchSpace

MAX_JOINTS = 1000
"""Joint options of one slot; measuring more blocks than that for one place takes too long."""


def block_plan(space: SearchSpace) -> BlockPlan:
    """The slots and blocks of a space.

    Args:
        space: any space; it is copied, not changed.

    Raises:
        UserError: a block depends on choices with too many joint options, or no block depends on a choice.
    """
    return _Planner(copy.deepcopy(space).cpu().eval()).plan()


class _Planner:
    """Cuts networks of a space until the block in every slot is known for every configuration."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._choices = space.choices()
        self._input_choices = {name: c for name, c in self._choices.items() if isinstance(c, InputChoice)}
        self._owners = BlockOwners(space)
        self._slot_choices: dict[str, tuple[str, ...]] = {}
        self._keys: dict[str, dict[Configuration, str | None]] = {}  # by slot
        self._blocks: dict[str, Block] = {}
        self._configurations: dict[tuple[str, ...], dict[Configuration, dict[str, int]]] = {}
        self._full = full_gates(space)

    def plan(self) -> BlockPlan:
        # A few networks with everything in them find the slots; further ones fill in what is missing.
        self._cut(self._full)
        for index in range(max(len(choice.options) for choice in self._choices.values())):
            self._cut({name: min(index, len(choice.options) - 1) for name, choice in self._choices.items()})
        while missing := [(slot, *entry) for slot in self._slot_choices for entry in self._missing(slot)]:
            # One network can show the missing blocks of many slots: all whose gates agree.
            wanted: dict[str, int] = {}
            for _, _, gates in missing:
                if all(wanted.get(name, index) == index for name, index in gates.items()):
                    wanted |= gates
            self._cut({**self._full, **wanted})
            slot, configuration, _ = missing[0]
            self._keys[slot].setdefault(configuration, None)  # it was in this network, or there is no block
        self._require_all_choices()
        slots = [Slot(s, names, self._keys[s], self._dependencies(s)) for s, names in self._slot_choices.items()]
        return BlockPlan(slots, self._blocks)

    def _dependencies(self, slot: str) -> tuple[str, ...]:
        """The choices beyond the slot's own that its state depends on, a depth that may leave it out included."""
        names = self._slot_choices[slot]
        others = self._state_choices(names).union(self._owners.conditions_of(slot)).difference(names)
        return self._in_order(others)

    def _state_choices(self, names: Sequence[str]) -> set[str]:
        return {other for name in names for other in self._space.dependencies(name)}

    def _in_order(self, names: Iterable[str]) -> tuple[str, ...]:
        wanted = set(names)
        return tuple(name for name in self._choices if name in wanted)

    def _require_all_choices(self) -> None:
        """Raises UserError if a choice changes the cost of a network without changing a block."""
        found = {name for slot, names in self._slot_choices.items() for name in (*names, *self._dependencies(slot))}
        for name, choice in self._choices.items():
            between_edges = isinstance(choice, InputChoice) and choice.edges
            if name not in found and not between_edges and len(choice.options) > 1:
                problem = f"costs are added up block by block, but no block depends on the {type(choice).__name__}"
                raise UserError("space", f"{problem} {name!r}", code="unsupported")

    def _missing(self, slot: str) -> Iterator[tuple[Configuration, dict[str, int]]]:
        """The configurations whose block is not known, each with gates that lead to it."""
        names = self._slot_choices[slot]
        if names not in self._configurations:
            self._configurations[names] = self._find_configurations(names)
        return ((c, gates) for c, gates in self._configurations[names].items() if c not in self._keys[slot])

    def _find_configurations(self, names: Sequence[str]) -> dict[Configuration, dict[str, int]]:
        every = self._in_order(self._state_choices(names).union(names))
        configurations: dict[Configuration, dict[str, int]] = {}
        for joint, states in joint_states(self._space, every):
            gates = dict(zip(every, joint, strict=True))
            state = state_of(states, names)
            if state != ABSENT:
                configuration = tuple(gates[name] for name in names), state
                configurations.setdefault(configuration, gates | self._gates_that_keep(names))
        return configurations

    def _gates_that_keep(self, edges: Iterable[str]) -> dict[str, int]:
        """For the choices between edges, options that keep these edges."""
        return {
            node: next(i for i, subset in enumerate(choice.subsets) if edge in {choice.edges[j] for j in subset})
            for edge in edges
            for node, choice in self._input_choices.items()
            if choice.edges and edge in choice.edges
        }

    def _states(self, gates: Mapping[str, int]) -> States:
        """The states of a network's layers; edges that are not kept are absent too."""
        dropped = {
            edge
            for node, choice in self._input_choices.items()
            for index, edge in enumerate(choice.edges or ())
            if index not in choice.subsets[gates[node]]
        }
        return {**self._space.states(self._space.architecture(gates)), **dict.fromkeys(dropped, ABSENT)}

    def _cut(self, gates: Mapping[str, int]) -> None:
        """Cut one network into blocks, and record which block is in which slot."""
        architecture = self._space.architecture(gates)
        states = self._states(gates)
        found: dict[str, Block] = {}
        for slot, nodes in self._parts(architecture):
            names = {name for node in nodes for name in self._owners.choices_of(node)}
            names |= set(self._slot_choices.get(slot, ()))
            if not names:
                continue
            self._note_choices(slot, names)
            label = "/".join(f"{architecture[name]}" for name in self._slot_choices[slot])
            words = state_of(states, self._slot_choices[slot]).split()
            family = self._owners.family(slot, label)
            block = extract_block(nodes, " ".join([label, *words]), family, words)
            if block is not None:
                self._blocks.setdefault(block.key, block)
                found[slot] = block
        for slot, names_of_slot in self._slot_choices.items():
            state = state_of(states, names_of_slot)
            if state != ABSENT:
                configuration = tuple(gates[name] for name in names_of_slot), state
                self._keys[slot][configuration] = found[slot].key if slot in found else None

    def _note_choices(self, slot: str, names: set[str]) -> None:
        known = self._slot_choices.get(slot, ())
        if names <= set(known):
            return
        self._slot_choices[slot] = self._in_order(names.union(known))
        self._keys[slot] = {}  # earlier entries were recorded for fewer choices
        joints = math.prod(len(self._choices[name].options) for name in self._slot_choices[slot])
        if joints > MAX_JOINTS:
            problem = f"{joints:,} different blocks are possible at {slot}; at most {MAX_JOINTS:,} can be measured"
            raise UserError("space", problem, code="unsupported")

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
            # Nodes that no module owns are grouped by stretches between modules.
            stretches += owner is None and before is not None
            groups.setdefault(owner or f"rest {stretches}", []).append(node)
            before = owner
        for owner, nodes in groups.items():
            parts = list(split_at_additions(nodes)) if self._owners.is_cut(owner) else [nodes]
            for index, part in enumerate(parts, start=1):
                yield f"{owner} {index}" if len(parts) > 1 else owner, part
