"""Cutting a traced network into blocks: where to cut, and a block as a network of its own."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import fx, nn

from espalier.nas.cost.blocks import Block, Shape
from espalier.nas.errors import UserError
from espalier.nas.space import ADDED, REPEATED

ADDITIONS: tuple[Any, ...] = (operator.add, torch.add)
KEY_DIGITS = 8
"""Hexadecimal digits of a hash at the end of a block's key, which also has its name and shapes."""


def split_at_additions(nodes: Sequence[fx.Node]) -> Iterator[list[fx.Node]]:
    """The nodes, cut behind each addition whose result alone reaches the nodes after it.

    Args:
        nodes: nodes of one graph in the order of their execution.
    """
    part: list[fx.Node] = []
    for position, node in enumerate(nodes):
        part.append(node)
        if node.target in ADDITIONS and position + 1 < len(nodes):
            later = set(nodes[position + 1 :])
            if {source for n in later for source in n.all_input_nodes if source.op != "get_attr"} <= later | {node}:
                yield part
                part = []
    yield part


def extract_block(nodes: Sequence[fx.Node], label: str, family: str, words: Sequence[str]) -> Block | None:
    """Some nodes as a network of their own.

    Args:
        nodes: of one graph, with the shapes that `ShapeProp` found, in the order of their execution.
        label: the beginning of the block's key.
        family: see `Block`.
        words: the words of their state, see `SearchSpace.states`.

    Returns:
        The block; None if the nodes compute nothing.

    Raises:
        UserError: they read several tensors.
    """
    nodes, source = _with_source(nodes)
    result, is_added = nodes[-1], ADDED in words
    if REPEATED in words or all(_layer(node) is nn.Identity for node in nodes):
        if not is_added:
            return None
        nodes, result, label, family = [], source, "add", "add"  # the addition alone is left
    module = _network_of(nodes, source, result, is_added=is_added)
    input_shape, output_shape = _shape(source), _shape(result)
    is_first = source.op == "placeholder"
    is_last = any(user.op == "output" for user in result.users)
    content = ([_described(module, node) for node in module.graph.nodes], input_shape, is_first, is_last)
    key = " ".join(
        [
            label,
            "x".join(map(str, input_shape)),
            "x".join(map(str, output_shape)),
            hashlib.sha256(repr(content).encode()).hexdigest()[:KEY_DIGITS],
        ]
    )
    ignores_input = bool(nodes) and nodes[0].target is torch.zeros_like and not is_added
    return Block(key, family, module, input_shape, output_shape, is_first, is_last, ignores_input)


def _with_source(nodes: Sequence[fx.Node]) -> tuple[Sequence[fx.Node], fx.Node]:
    """The nodes, and the one node that they read.

    Raises:
        UserError: they read several tensors.
    """
    own = set(nodes)
    read = dict.fromkeys(n for node in nodes for n in node.all_input_nodes if n not in own and n.op != "get_attr")
    if [n.target for n in read] == [torch.zeros_like]:  # zeros are made by the block that reads them
        (zeros,) = read
        nodes, read = [zeros, *nodes], dict.fromkeys(zeros.all_input_nodes)
    if len(read) != 1:
        problem = f"the block at {nodes[0].target} reads {len(read)} tensors; a block must read exactly one"
        raise UserError("space", problem, code="unsupported")
    return nodes, next(iter(read))


def _network_of(nodes: Sequence[fx.Node], source: fx.Node, result: fx.Node, *, is_added: bool) -> fx.GraphModule:
    """The nodes as a network from `source` to `result`, plus its input where the result is added to it."""
    network = source.graph.owning_module
    assert network is not None
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {source: graph.placeholder("x")}
    for node in nodes:
        for n in node.all_input_nodes:
            if n not in copies:
                copies[n] = graph.get_attr(str(n.target))
        copies[node] = graph.node_copy(node, copies.__getitem__)
    end = graph.call_function(operator.add, (copies[source], copies[result])) if is_added else copies[result]
    graph.output(end)
    return fx.GraphModule(network, graph)


def _described(module: fx.GraphModule, node: fx.Node) -> tuple[Any, ...]:
    """What a node computes, regardless of names and of the values of weights."""
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
