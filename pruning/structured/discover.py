"""Find the groups of a network: channels by the dependency graph, heads and hidden layers by their modules' form."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from espalier.pruning.structured.attributes import attention_heads, hidden_layers, tied_chunks
from espalier.pruning.structured.graph import Fixed, Link, links
from espalier.pruning.structured.groups import Kind, Member, Units
from espalier.pruning.structured.layers import Side, channels, normalises_channels
from espalier.pruning.weights import CONVOLUTIONS, PRUNABLE, check_patterns, matches


def discover(
    model: nn.Module, example: Tensor, *, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> list[Units]:
    """All groups of `model` in the order of its layers; groups that must stay dense come with the reason.

    Args:
        model: the network.
        example: an input `(batch, channels, height, width)`.
        include: patterns of layer names; every layer that produces a group's channels must match one.
        exclude: patterns of layer names; no layer that produces or reads a group's channels may match one.

    Raises:
        UserError: a pattern matches no layer.
    """
    layers = [name for name, layer in model.named_modules() if isinstance(layer, PRUNABLE)]
    check_patterns(layers, include=include, exclude=exclude)
    known = [*attention_heads(model), *hidden_layers(model)]
    internal = {member.side for units in known for member in units.members}
    elements = _Elements(model)
    untraced = "its channels do not appear in the traced network"
    try:
        for found in links(model, example):
            if isinstance(found, Fixed):
                if found.side not in internal:
                    elements.fix(found)
            elif not internal & {found.source, found.target}:
                elements.link(found)
    except Exception as error:  # noqa: BLE001 - tracing runs the user's code; the reason is reported
        untraced = f"cannot be traced ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    for link in [*_grouped(model), *_tied(model)]:
        if not internal & {link.source, link.target}:
            elements.link(link)
    groups = [*known, *elements.groups()]
    seen = {member.side for units in groups for member in units.members}
    groups += [units.marked_dense(untraced) for units in _single(model, seen)]
    order = {name: index for index, (name, _) in enumerate([*model.named_modules(), *model.named_parameters()])}
    groups.sort(key=lambda units: min(order[name] for name in units.layers))
    return [_restricted(model, units, include, exclude) for units in _named_apart(groups)]


class _Elements:
    """All channels of all layer sides, numbered consecutively, and the links between them."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._layers = dict([*model.named_modules(), *model.named_parameters()])
        self._order = {name: index for index, name in enumerate(self._layers)}
        self._first: dict[Side, int] = {}
        self._sides: list[Side] = []
        self._side_of: list[int] = []
        self._pairs: list[np.ndarray] = []
        self._fixed: dict[Side, str] = {}

    def link(self, link: Link) -> None:
        a, b = self._start(link.source), self._start(link.target)
        self._pairs.append(np.stack([a + link.from_.numpy(), b + link.to.numpy()]))

    def fix(self, fixed: Fixed) -> None:
        self._fixed.setdefault(fixed.side, fixed.reason)
        self._start(fixed.side)

    def groups(self) -> Iterator[Units]:
        """Units of channels that must be removed together; units on the same layer sides form one group."""
        units: dict[tuple[tuple[int, int], ...], list[np.ndarray]] = defaultdict(list)
        side_of = np.array(self._side_of)
        for channels_ in self._components():
            # The signature of a component: how many of its channels lie on which side.
            counts = Counter(side_of[channels_].tolist())
            units[tuple(sorted(counts.items()))].append(channels_)
        for signature, components in units.items():
            sides = sorted((self._sides[index] for index, _ in signature), key=self._position)
            if any(self._is_output(side) for side in sides):
                yield self._units(sides, components)

    def _units(self, sides: list[Side], components: list[np.ndarray]) -> Units:
        members = []
        for side in sides:
            first, width = self._first[side], self._width(side)
            unit_of = torch.full((width,), -1, dtype=torch.long)
            for unit, channels_ in enumerate(components):
                inside = channels_[(channels_ >= first) & (channels_ < first + width)] - first
                unit_of[torch.from_numpy(inside)] = unit
            members.append(Member(side, unit_of))
        layers = {side[0]: self._layers[side[0]] for side in sides}
        kind: Kind = "normalised" if any(map(normalises_channels, layers.values())) else "channels"
        weighted = [member for member in members if isinstance(layers[member.side[0]], PRUNABLE)]
        size = min(int((member.unit_of == 0).sum()) for member in weighted)
        name = next(side[0] for side in sides if self._is_output(side))
        reason = next((self._fixed[side] for side in sides if side in self._fixed), None)
        if reason is None and len(components) < 2:
            reason = "has only one unit"
        return Units(name, kind, len(components), tuple(members), size, dense_because=reason)

    def _components(self) -> list[np.ndarray]:
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        size = len(self._side_of)
        if not size:
            return []
        pairs = np.concatenate([*self._pairs, np.empty((2, 0), dtype=np.int64)], axis=1)
        matrix = coo_matrix((np.ones(pairs.shape[1], dtype=np.int8), (pairs[0], pairs[1])), shape=(size, size))
        _, labels = connected_components(matrix, directed=False)
        order = np.argsort(labels, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)

    def _start(self, side: Side) -> int:
        if side not in self._first:
            self._first[side] = len(self._side_of)
            self._side_of += [len(self._sides)] * self._width(side)
            self._sides.append(side)
        return self._first[side]

    def _width(self, side: Side) -> int:
        return channels(self._layers[side[0]], side[1]) or 0

    def _position(self, side: Side) -> tuple[int, bool]:
        return self._order[side[0]], side[1] == "in"

    def _is_output(self, side: Side) -> bool:
        return side[1] == "out" and isinstance(self._layers[side[0]], PRUNABLE)


def _grouped(model: nn.Module) -> Iterator[Link]:
    """Grouped convolutions lose whole groups, inputs and outputs together; depthwise ones lose channels."""
    for name, layer in model.named_modules():
        if isinstance(layer, CONVOLUTIONS) and layer.groups > 1:
            first = {side: torch.arange(layer.groups) * (width // layer.groups) for side, width in _widths(layer)}
            for side, width in _widths(layer):
                each = torch.arange(width)
                group = each // (width // layer.groups)
                yield Link((name, "out"), first["out"][group], (name, side), each)


def _widths(layer: nn.Module) -> list[tuple[str, int]]:
    return [(side, channels(layer, side) or 0) for side in ("out", "in")]


def _tied(model: nn.Module) -> Iterator[Link]:
    for member in tied_chunks(model):
        first = torch.tensor([int((member.unit_of == unit).nonzero()[0]) for unit in member.unit_of.unique()])
        yield Link(member.side, first[member.unit_of], member.side, torch.arange(len(member.unit_of)))


def _single(model: nn.Module, seen: set[Side]) -> Iterator[Units]:
    """The outputs of each layer that belongs to no group, as a group of their own."""
    for name, layer in model.named_modules():
        if isinstance(layer, PRUNABLE) and (name, "out") not in seen:
            width = channels(layer, "out") or 0
            yield Units(name, "channels", width, (Member((name, "out"), torch.arange(width)),))


def _named_apart(groups: list[Units]) -> Iterator[Units]:
    seen: Counter[str] = Counter()
    for units in groups:
        seen[units.name] += 1
        if (n := seen[units.name]) == 1:
            yield units
        else:
            yield Units(**{**vars(units), "name": f"{units.name}#{n}"})


def _restricted(model: nn.Module, units: Units, include: Sequence[str], exclude: Sequence[str]) -> Units:
    """The group, marked dense if a pattern or a weight shared by two layers requires it."""
    if units.dense_because is not None:
        return units
    modules = dict(model.named_modules())
    weighted = [member.side for member in units.members if isinstance(modules.get(member.side[0]), PRUNABLE)]
    for name, side in weighted:
        if matches(name, exclude):
            return units.marked_dense(f"{name} is excluded")
        if side == "out" and not matches(name, include):
            return units.marked_dense(f"{name} is not included")
    shared = _shared(model)
    for name in units.layers:
        if name in shared:
            return units.marked_dense(f"the weights of {name} are also those of {shared[name]}")
    return units


def _shared(model: nn.Module) -> dict[str, str]:
    """Layers that share a parameter with another layer, with that layer's name."""
    owners: dict[int, list[str]] = defaultdict(list)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners[id(parameter)].append(name.rpartition(".")[0])
    names = {name for name, _ in model.named_modules()}
    pairs: Iterable[tuple[str, str]] = (
        (one, other) for layers in owners.values() for one in layers for other in layers if one != other
    )
    return {one: other for one, other in pairs if one in names and other in names}
