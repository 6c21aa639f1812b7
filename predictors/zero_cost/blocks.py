"""The blocks of any network: its graph, cut wherever all data flows through a single tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from espalier.predictors.zero_cost.network import ScoreError

OnBlock = Callable[[Tensor, Tensor], None]


def run_blocks(model: nn.Module, x: Tensor, on_block: OnBlock) -> None:
    """Run the network block by block, each on a detached copy of what the block before put out.

    Args:
        model: takes images; used up.
        x: images `(n, channels, height, width)`.
        on_block: called after each block, in order, with its input, a leaf that requires grad, and its output, maps
            `(n, channels, height, width)`, which must not be modified.

    Raises:
        ScoreError: `torch.fx` cannot trace the network.
    """
    network = traced(model)
    _Run(network, block_ends(network, x), on_block).run(x)


def traced(model: nn.Module) -> fx.GraphModule:
    """The network as a graph of layers and functions.

    Raises:
        ScoreError: `torch.fx` cannot trace the network.
    """
    if isinstance(model, fx.GraphModule):
        return model
    try:
        return fx.symbolic_trace(model)
    except (ValueError, TypeError, RuntimeError) as error:  # how layers react to torch.fx's proxies for tensors
        raise ScoreError("network", f"blocks need a network that torch.fx can trace: {error}") from error


def block_ends(network: fx.GraphModule, x: Tensor) -> list[fx.Node]:
    """The nodes whose outputs are the blocks' outputs, from first to last.

    A cut is a node that every path from the images to the logits passes through, and that puts out maps of more than
    one position. A block holds at least one convolution and ends at the first cut behind it; normalisations and
    activations that follow still belong to it, as long as they keep the shape. Pooling opens the next block, or
    belongs to none at the end.
    """
    import networkx as nx

    flow = nx.DiGraph((source, node) for node in network.graph.nodes for source in node.all_input_nodes)
    shapes = _shapes(network, x)
    ends: list[fx.Node] = []
    behind: set[fx.Node] = set()
    for cut in _dominators(network.graph, flow):
        shape = shapes.get(cut, ())
        if len(shape) != 4 or shape[2] * shape[3] == 1:
            continue
        segment = {cut, *nx.ancestors(flow, cut)} - behind
        behind |= segment
        if any(_is_convolution(network, node) for node in segment):
            ends.append(cut)
        elif ends and shape == shapes[ends[-1]]:
            ends[-1] = cut
    return ends


class _Run(fx.Interpreter):
    def __init__(self, network: fx.GraphModule, ends: list[fx.Node], on_block: OnBlock) -> None:
        super().__init__(network)
        self._cuts = {_images(network.graph), *ends}
        self._on_block = on_block
        self._input: Tensor | None = None

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n not in self._cuts:
            return result
        if self._input is not None:
            self._on_block(self._input, result)
        self._input = result.detach().requires_grad_()
        return self._input.clone()  # the next block may modify it, as an in-place ReLU does


def _dominators(graph: fx.Graph, flow: Any) -> list[fx.Node]:
    """The nodes on all paths from the images to the logits, in order; none if no path leads there."""
    import networkx as nx

    logits: Any = graph.output_node().args[0]
    node = logits[0] if isinstance(logits, tuple | list) and logits else logits
    above = nx.immediate_dominators(flow, _images(graph))
    path: list[fx.Node] = []
    while node in above and node is not _images(graph):
        path.append(node)
        node = above[node]
    return path[::-1]


def _shapes(network: fx.GraphModule, x: Tensor) -> dict[fx.Node, tuple[int, ...]]:
    """What every node puts out for two images (as many as batch norm needs); only of those that put out a tensor."""
    with torch.no_grad():
        ShapeProp(network).propagate(x[:2])
    metas = {node: node.meta.get("tensor_meta") for node in network.graph.nodes}
    return {node: tuple(meta.shape) for node, meta in metas.items() if hasattr(meta, "shape")}


def _images(graph: fx.Graph) -> fx.Node:
    return next(node for node in graph.nodes if node.op == "placeholder")


def _is_convolution(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(network.get_submodule(str(node.target)), nn.Conv2d)
    return node.target is F.conv2d
