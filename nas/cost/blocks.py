"""The blocks of a space's networks: parts that read one tensor and make one, and the few choices each depends on.

A network is cut where choices begin and end: a layer choice with the addition of its input around it, a block that a
depth may leave out (at its additions cut again), elastic layers with what follows them. Blocks that compute alike on
equal shapes share a key, so that each has to be measured once. What depends on no choice is in no block: every network
has it.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from espalier.nas.architecture import Architecture
from espalier.nas.choices import Choice, InputChoice, LayerChoice
from espalier.nas.cost.layer_sites import first_passing
from espalier.nas.elastic.cost import Conditional
from espalier.nas.elastic.layer import Elastic
from espalier.nas.errors import UserError
from espalier.nas.space import ABSENT, ADDED, REPEATED, SearchSpace

MAX_JOINTS = 1000
"""Joint options of one slot; beyond that nobody waits for a table."""
ADDITIONS: tuple[Any, ...] = (operator.add, torch.add)

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
        beside: further choices, which decide the state.
    """

    name: str
    choices: tuple[str, ...]
    keys: Mapping[Way, str | None]
    beside: tuple[str, ...]


@dataclass(frozen=True)
class BlockPlan:
    """Where the blocks of a space's networks stand. Attributes: slots: in order. blocks: by key."""

    slots: Sequence[Slot]
    blocks: Mapping[str, Block]


def state_of(states: Mapping[str, str], choices: Sequence[str]) -> str:
    """The state of a block of these choices, out of `SearchSpace.states`: ABSENT where one of them is, else joined."""
    found = sorted({states[name] for name in choices if name in states})
    return ABSENT if ABSENT in found else " ".join(found)


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
        self._owners = _Owners(space)
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
        slots = [Slot(slot, names, self._keys[slot], self._beside(slot)) for slot, names in self._names.items()]
        return BlockPlan(slots, self._blocks)

    def _beside(self, slot: str) -> tuple[str, ...]:
        names = self._names[slot]
        beside = {other for name in names for other in self._space.beside(name)}
        beside = beside.union(self._owners.conditions_of(slot)).difference(names)
        return tuple(name for name in self._choices if name in beside)

    def _check(self) -> None:
        met = {name for slot, names in self._names.items() for name in (*names, *self._beside(slot))}
        for name, choice in self._choices.items():
            if name not in met and not (isinstance(choice, InputChoice) and choice.edges) and len(choice.options) > 1:
                problem = f"costs are added up block by block, and no block depends on the {type(choice).__name__}"
                raise UserError("space", f"{problem} {name!r}")

    def _missing(self, slot: str) -> Iterator[tuple[Way, dict[str, int]]]:
        """The joint options and states of which the block is not known, with gates that have them."""
        names = self._names[slot]
        if names not in self._ways:
            self._ways[names] = self._find_ways(names)
        return ((way, gates) for way, gates in self._ways[names].items() if way not in self._keys[slot])

    def _find_ways(self, names: Sequence[str]) -> dict[Way, dict[str, int]]:
        beside = {other for name in names for other in self._space.beside(name)}.difference(names)
        ways: dict[Way, dict[str, int]] = {}
        for gates, states in self._states_of(tuple(name for name in self._choices if name in beside.union(names))):
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
            block = _block(nodes, " ".join([label, *words]), family, words)
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
            raise UserError("space", f"{joints:,} blocks can stand at {slot}, too many to measure each")

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
            parts = list(_at_additions(nodes)) if self._owners.is_cut(owner) else [nodes]
            for index, part in enumerate(parts, start=1):
                yield f"{owner} {index}" if len(parts) > 1 else owner, part


class _Owners:
    """The modules of a space that blocks belong to, and the choices that layers depend on."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        modules = dict(space.named_modules())
        self._conditional = {
            f"{path}.{part}": choice.name if len(options) < len(choice.options) else None
            for path, module in modules.items()
            if isinstance(module, Conditional)
            for part, (choice, options) in module.conditions().items()
        }
        choices = [path for path, module in modules.items() if isinstance(module, LayerChoice)]
        self._paths = set(self._conditional)
        for path in choices:
            if not self._outer(path):
                owner = path
                while (above := owner.rpartition(".")[0]) and sum(p.startswith(f"{above}.") for p in choices) == 1:
                    owner = above
                self._paths.add(owner)
        for path, module in modules.items():
            above = path.rpartition(".")[0]
            if isinstance(module, Elastic) and above and not self._outer(path):
                while (higher := above.rpartition(".")[0]) and _names(modules[higher]) == _names(modules[above]):
                    above = higher
                self._paths.add(above)

    def of(self, node: fx.Node) -> str | None:
        """The module that a node belongs to; None between them."""
        inside = list(node.meta.get("nn_module_stack") or ())
        path = str(inside[-1]).removeprefix("space").removeprefix(".") if inside else ""
        return self._outer(path)

    def is_cut(self, owner: str) -> bool:
        """Whether it is made of several blocks in a row."""
        return owner in self._conditional

    def conditions_of(self, slot: str) -> list[str]:
        """The choice by which its blocks are run at all, where they are not always."""
        condition = self._conditional.get(slot.partition(" ")[0])
        return [] if condition is None else [condition]

    def family(self, slot: str, label: str) -> str:
        """The name of its blocks' family: the option where there is one layer choice, else the kind of module."""
        owner, _, part = slot.partition(" ")
        if owner == "rest":
            return slot
        module = self._space.get_submodule(owner)
        if any(isinstance(inner, LayerChoice) for inner in module.modules()):
            return label
        return f"{type(module).__name__} {part}".strip()

    def choices_of(self, node: fx.Node) -> Iterator[str]:
        """The choices that decide which layer it is, and the layer's sizes."""
        targets = [n.target for n in (node, *node.all_input_nodes) if n.op == "get_attr" or n is node]
        for target in targets:
            if node.op != "call_module" and target is node.target:
                continue
            part: Any = self._space
            for name in str(target).split("."):
                part = getattr(part, name)
                if isinstance(part, LayerChoice):
                    yield part.name
            if isinstance(part, nn.Module):
                yield from (inner.name for inner in part.modules() if isinstance(inner, Choice))

    def _outer(self, path: str) -> str | None:
        while path and path not in self._paths:
            path = path.rpartition(".")[0]
        return path or None


def _names(module: nn.Module) -> set[str]:
    return {inner.name for inner in module.modules() if isinstance(inner, Choice)}


def _default(choice: Choice) -> int:
    """An option by which everything that can be there is."""
    return first_passing(choice) if isinstance(choice, LayerChoice) else len(choice.options) - 1


def _at_additions(nodes: Sequence[fx.Node]) -> Iterator[list[fx.Node]]:
    """The nodes cut behind each addition that all later ones read, directly or not, and nothing before it."""
    part: list[fx.Node] = []
    for position, node in enumerate(nodes):
        part.append(node)
        if node.target in ADDITIONS and position + 1 < len(nodes):
            later = set(nodes[position + 1 :])
            if {source for n in later for source in n.all_input_nodes if source.op != "get_attr"} <= later | {node}:
                yield part
                part = []
    yield part


def _block(nodes: Sequence[fx.Node], label: str, family: str, words: Sequence[str]) -> Block | None:
    """The nodes as a network of their own; None where they do nothing.

    Args:
        words: of their state, see `SearchSpace.states`.

    Raises:
        UserError: they read several tensors.
    """
    network = nodes[0].graph.owning_module
    assert network is not None
    own = set(nodes)
    read = dict.fromkeys(n for node in nodes for n in node.all_input_nodes if n not in own and n.op != "get_attr")
    if [n.target for n in read] == [torch.zeros_like]:  # zeros are made where they are read
        (zeros,) = read
        nodes, read = [zeros, *nodes], dict.fromkeys(zeros.all_input_nodes)
    if len(read) != 1:
        raise UserError("space", f"the block at {nodes[0].target} reads {len(read)} tensors, must read one")
    source, result = next(iter(read)), nodes[-1]
    if REPEATED in words or all(_layer(node) is nn.Identity for node in nodes):
        if ADDED not in words:
            return None
        nodes, result, label, family = [], source, "add", "add"
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {source: graph.placeholder("x")}
    for node in nodes:
        for n in node.all_input_nodes:
            if n not in copies:
                copies[n] = graph.get_attr(str(n.target))
        copies[node] = graph.node_copy(node, copies.__getitem__)
    is_added = ADDED in words
    end = graph.call_function(operator.add, (copies[source], copies[result])) if is_added else copies[result]
    graph.output(end)
    module = fx.GraphModule(network, graph)
    given, made = _shape(source), _shape(result)
    sizes = "x".join(map(str, given)), "x".join(map(str, made))
    is_first, is_last = source.op == "placeholder", any(user.op == "output" for user in result.users)
    layers = [_described(module, node) for node in graph.nodes]
    digest = hashlib.sha256(repr((layers, given, is_first, is_last)).encode()).hexdigest()[:8]
    ignores_input = bool(nodes) and nodes[0].target is torch.zeros_like and not is_added
    key = f"{label} {sizes[0]} {sizes[1]} {digest}"
    return Block(key, family, module, given, made, is_first, is_last, ignores_input)


def _described(module: fx.GraphModule, node: fx.Node) -> tuple[Any, ...]:
    """What a node computes, whatever it is called and whatever its weights."""
    order = {n: index for index, n in enumerate(node.graph.nodes)}
    arguments = fx.node.map_arg((node.args, node.kwargs), lambda n: order[n])
    if node.op == "call_module":
        layer = module.get_submodule(str(node.target))
        return (repr(layer), [tuple(parameter.shape) for parameter in layer.parameters()], repr(arguments))
    if node.op == "get_attr":
        return (node.op, tuple(module.get_parameter(str(node.target)).shape))
    called = "" if node.op in ("placeholder", "output") else getattr(node.target, "__name__", str(node.target))
    return (node.op, called, repr(arguments))


def _layer(node: fx.Node) -> type[nn.Module] | None:
    """The class of the layer that a node calls."""
    network = node.graph.owning_module
    return type(network.get_submodule(str(node.target))) if network and node.op == "call_module" else None


def _shape(node: fx.Node) -> Shape:
    return tuple(node.meta["tensor_meta"].shape[1:])
