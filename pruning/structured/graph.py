"""Which channels depend on which: Torch-Pruning's graph, read into links between single channels.

Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023. The graph follows autograd's, and guesses where that
says nothing of channels; what it gives is checked afterwards, group by group.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pruning.structured.layers import CONVOLUTIONS, WEIGHTED, Side, channels


@dataclass(frozen=True)
class Link:
    """Channel `from_[i]` of one side leaves with channel `to[i]` of the other."""

    source: Side
    from_: Tensor
    target: Side
    to: Tensor


@dataclass(frozen=True)
class Fixed:
    """All channels of a side stay, for this reason."""

    side: Side
    reason: str


def links(model: nn.Module, example: Tensor) -> Iterator[Link | Fixed]:
    """What Torch-Pruning finds by running `example` `(batch, channels, height, width)` through a copy of `model`.

    Raises:
        Exception: whatever the network or Torch-Pruning raise where it cannot be traced.
    """
    import torch_pruning

    traced = copy.deepcopy(model).requires_grad_(requires_grad=True)  # the graph is autograd's
    names = {id(part): name for name, part in [*traced.named_modules(), *traced.named_parameters()]}
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(traced, example_inputs=(example,), verbose=False)
        _order_chunks(graph)
        for group in graph.get_all_groups(root_module_types=WEIGHTED):
            root = (names[id(group[0].dep.target.module)], "out")
            for item in group:
                yield from _links(graph, root, item, names)


def _order_chunks(graph: Any) -> None:
    """Put what reads the chunks of a split in the order of the chunks, which Torch-Pruning takes it to have.

    It has them in the order in which it came upon them, and so would follow channels into the wrong chunk.
    """
    for node in graph.module2node.values():
        if type(node.module).__name__ in ("_SplitOp", "_UnbindOp"):
            chunks = {
                reader: chunk
                for reader in node.outputs
                for source, chunk in reader.grad_fn.next_functions
                if source is node.grad_fn
            }
            node.outputs.sort(key=lambda reader, chunks=chunks: chunks.get(reader, 0))


def _links(graph: Any, root: Side, item: Any, names: dict[int, str]) -> Iterator[Link | Fixed]:
    node = item.dep.target
    layer = node.module
    name = names.get(id(layer))
    if name is None:  # an operation, not a layer
        if type(layer).__name__ == "_OutputOp":
            yield Fixed(root, "the network's outputs")
        return
    if not node.outputs and isinstance(layer, nn.Module) and _is_out(graph, item, layer):
        yield Fixed(root, "the network's outputs")
    side = _side(graph, item, node)
    width = channels(layer, side)
    if width is None:
        if any(True for _ in layer.parameters()) and not isinstance(layer, nn.PReLU):
            yield Fixed(root, f"{name}, a {type(layer).__name__}, cannot lose channels")
        return
    pairs = [(i, r) for i, r in zip(item.idxs, item.root_idxs, strict=True) if r is not None and i < width]
    if len(pairs) < len(item.idxs):
        yield Fixed(root, f"its channels cannot be followed into {name}")
    if pairs:
        to, from_ = torch.tensor(pairs).unbind(1)
        yield Link(root, from_, (name, side), to)


def _side(graph: Any, item: Any, node: Any) -> str:
    layer = node.module
    if isinstance(layer, nn.Parameter):
        return str(node.pruning_dim % layer.ndim)
    if isinstance(layer, WEIGHTED) and not _is_out(graph, item, layer):
        return "in"
    return "out"


def _is_out(graph: Any, item: Any, layer: nn.Module) -> bool:
    """Whether a layer's outputs leave, not its inputs. Of depthwise convolutions, norms and others it is both."""
    if isinstance(layer, CONVOLUTIONS) and layer.groups == layer.out_channels > 1:
        return True
    return bool(graph.is_out_channel_pruning_fn(item.dep.handler))
