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


def split_at_additions(nodes: Sequence[fx.Node]) -> Iterator[list[fx.Node]]:
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


def extract_block(nodes: Sequence[fx.Node], label: str, family: str, words: Sequence[str]) -> Block | None:
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
        raise UserError(
            "space", f"the block at {nodes[0].target} reads {len(read)} tensors, must read one", code="unsupported"
        )
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
