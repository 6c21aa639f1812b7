"""Dependencies between channels: Torch-Pruning's graph, converted to links between single channels.

Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023. The graph is built from autograd's, and guesses
where that does not tell how channels are connected; the result is verified afterwards, group by group.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from espalier.nas.copying import copied
from espalier.pruning.structured.layers import Side, channels, normalises_channels
from espalier.pruning.structured.plain_calls import PlainCalls
from espalier.pruning.weights import CONVOLUTIONS, PRUNABLE

OUTPUTS = "the network's outputs"


@dataclass(frozen=True)
class Link:
    """Channel `from_[i]` of one side must be removed together with channel `to[i]` of the other."""

    source: Side
    from_: Tensor
    target: Side
    to: Tensor


@dataclass(frozen=True)
class Fixed:
    """All channels of a side must stay, for this reason."""

    side: Side
    reason: str


def links(model: nn.Module, example: Tensor) -> Iterator[Link | Fixed]:
    """The dependencies that Torch-Pruning finds by running `example` through a copy of `model`.

    Args:
        model: the network.
        example: an input `(batch, channels, height, width)`.

    Raises:
        Exception: whatever the network or Torch-Pruning raises if it cannot be traced.
    """
    import torch_pruning

    # Torch-Pruning builds its graph from autograd's, so every parameter needs a gradient.
    traced = copied(model).requires_grad_(requires_grad=True)
    names = {id(part): name for name, part in [*traced.named_modules(), *traced.named_parameters()]}
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with PlainCalls():
            graph = torch_pruning.DependencyGraph().build_dependency(traced, example_inputs=(example,), verbose=False)
        _correct(graph)
        yield from _Walk(graph, names, traced).links()


def _correct(graph: Any) -> None:
    """Correct what Torch-Pruning assumes about slices: that channels are a certain dimension, and that all go through.

    A slice of another dimension (rows, tokens) passes all channels on, as any elementwise operation does.
    """
    listed = graph.get_out_channels

    def out_channels(node: Any) -> int | None:
        if node.type == graph.ops.OPTYPE.SLICE and _is_of_channels(graph, node):
            return len(range(node.module.start, node.module.end, node.module.step))
        width: int | None = listed(node)
        return width

    graph.get_out_channels = out_channels
    nodes = list(graph.module2node.values())
    slices = [node for node in nodes if node.type == graph.ops.OPTYPE.SLICE]
    for node in slices:
        cut, size = node.module, node.grad_fn._saved_self_sym_sizes[node.module.dim]
        # autograd saves negative bounds as unsigned numbers, and an open end as 2^63 - 1
        cut.start, cut.end, cut.step = slice(_signed(cut.start), _signed(cut.end), cut.step).indices(size)
    for node in [node for node in slices if not _is_of_channels(graph, node)]:
        node.type = graph.ops.OPTYPE.ELEMENTWISE
    for node in nodes:
        if type(node.module).__name__ == "_ConcatOp":
            node.module.concat_sizes = None  # to be inferred again


def _signed(number: int) -> int:
    """A 64-bit number that was saved without its sign."""
    return number - 2**64 if number >= 2**63 else number


def _map_slices(graph: Any) -> None:
    """Set the channels that each slice reads, in whichever dimension they are."""
    from torch_pruning.dependency.index_mapping import _SliceIndexMapping

    for node in graph.module2node.values():
        if node.type != graph.ops.OPTYPE.SLICE:
            continue
        cut = node.module
        for end, reverse in [(node, True), *((source, False) for source in node.inputs)]:
            others = node.inputs if reverse else [node]
            for dependency in end.dependencies:
                if dependency.target in others:
                    dependency.index_mapping[0] = _SliceIndexMapping(
                        dim=cut.dim, start=cut.start, end=cut.end, step=cut.step, reverse=reverse
                    )


def _is_of_channels(graph: Any, node: Any) -> bool:
    """Whether the sliced dimension is the one of channels: whether it is as long as there are channels."""
    from torch_pruning.dependency.shape_infer import infer_out_channels_recursively

    sizes, dim = getattr(node.grad_fn, "_saved_self_sym_sizes", None), getattr(node.grad_fn, "_saved_dim", None)
    if sizes is None or dim is None:
        return True
    known = infer_out_channels_recursively(graph, node.inputs[0], [0]) if node.inputs else None
    return known is None or known == sizes[dim]


class _Index(NamedTuple):
    """A channel and the channel of the root layer that led to it, in the form of Torch-Pruning's mappings."""

    idx: int
    root_idx: int


class _Walk:
    """Follows the outputs of every layer to everything that depends on them, visiting each channel of each node once.

    Torch-Pruning's own groups lose a dependency when two channels of the root lead to one channel. Here that channel
    links the two, and is not followed again.
    """

    def __init__(self, graph: Any, names: dict[int, str], model: nn.Module) -> None:
        from torch_pruning.dependency.index_mapping import update_index_mapping

        update_index_mapping(graph)
        _map_slices(graph)
        self.graph, self.names, self.model = graph, names, model
        self._owners: dict[tuple[int, Any, int], tuple[Side, int]] = {}

    def links(self) -> Iterator[Link | Fixed]:
        for layer, node in self.graph.module2node.items():
            if isinstance(layer, PRUNABLE):
                yield from self._from(node)

    def _from(self, start: Any) -> Iterator[Link | Fixed]:
        """Everything that depends on the outputs of one layer, depth first."""
        root = (self.names[id(start.module)], "out")
        handler = self.graph.get_pruner_of_module(start.module).prune_out_channels
        # Nodes still to visit: the node, the pruning function that says on which side of it, and its channels.
        waiting = [(start, handler, [_Index(i, i) for i in range(channels(start.module, "out") or 0)])]
        while waiting:
            node, handler, indices = waiting.pop()
            if any(index.root_idx is None for index in indices):
                yield Fixed(root, "its channels cannot be followed through a repetition")
                continue
            fresh, known = self._claimed(node, handler, indices, root)
            yield from known
            if not fresh:
                continue
            yield from _reached(self, root, node, handler, fresh)
            for dependency in node.dependencies:
                if dependency.is_triggered_by(handler) and (there := _mapped(dependency, fresh)):
                    waiting.append((dependency.target, dependency.handler, there))

    def _claimed(self, node: Any, handler: Any, indices: Sequence[Any], root: Side) -> tuple[list[Any], list[Link]]:
        """The channels visited for the first time, and links between the root channels that led to the others."""
        fresh, pairs = [], defaultdict(list)
        for index in indices:
            place = (id(node), handler, index.idx)
            if place not in self._owners:
                self._owners[place] = (root, index.root_idx)
                fresh.append(index)
            else:
                side, owner = self._owners[place]
                pairs[side].append((index.root_idx, owner))
        known = []
        for side, found in pairs.items():
            from_, to = torch.tensor(found).unbind(1)
            known.append(Link(root, from_, side, to))
        return fresh, known


def _mapped(dependency: Any, indices: list[Any]) -> list[Any]:
    """Channel numbers at the other end of a dependency: out of a split, then into a concatenation (or backwards)."""
    mappings = [mapping for mapping in dependency.index_mapping if mapping is not None]
    if dependency.target in dependency.source.inputs:
        mappings.reverse()
    for mapping in mappings:
        indices = mapping(indices)
    return indices


def _reached(walk: _Walk, root: Side, node: Any, handler: Any, indices: Sequence[Any]) -> Iterator[Link | Fixed]:
    """What it means for the root that its channels reach these channels of a node: a link, or that they must stay."""
    layer, graph = node.module, walk.graph
    name = walk.names.get(id(layer))
    if name is None:  # an operation, not a layer
        if type(layer).__name__ == "_OutputOp":
            yield Fixed(root, OUTPUTS)
        return
    if not node.outputs and isinstance(layer, nn.Module) and _is_out(graph, handler, layer):
        yield Fixed(root, OUTPUTS)
    side = _side(graph, handler, node)
    # Torch-Pruning lists the parameters of norms that it does not know as bare parameters; here the norm is the layer.
    if isinstance(layer, nn.Parameter) and normalises_channels(
        norm := walk.model.get_submodule(name.rpartition(".")[0])
    ):
        layer, name, side = norm, name.rpartition(".")[0], "out"
    width = channels(layer, side)
    if width is None:
        if any(True for _ in layer.parameters()) and not isinstance(layer, nn.PReLU):
            yield Fixed(root, f"{name}, a {type(layer).__name__}, cannot lose channels")
        return
    pairs = [(index.idx, index.root_idx) for index in indices if index.idx < width]
    if len(pairs) < len(indices):
        yield Fixed(root, f"its channels cannot be followed into {name}")
    if pairs:
        to, from_ = torch.tensor(pairs).unbind(1)
        yield Link(root, from_, (name, side), to)


def _side(graph: Any, handler: Any, node: Any) -> str:
    layer = node.module
    if isinstance(layer, nn.Parameter):
        return str(node.pruning_dim % layer.ndim)
    if isinstance(layer, PRUNABLE) and not _is_out(graph, handler, layer):
        return "in"
    return "out"


def _is_out(graph: Any, handler: Any, layer: nn.Module) -> bool:
    """Whether a layer loses outputs rather than inputs. Depthwise convolutions, norms and others lose both."""
    if isinstance(layer, CONVOLUTIONS) and layer.groups == layer.out_channels > 1:
        return True
    return bool(graph.is_out_channel_pruning_fn(handler))
