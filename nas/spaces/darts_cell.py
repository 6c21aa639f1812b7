"""Cells of the DARTS spaces: their operations, nodes and edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from espalier.nas.choices import InputChoice, LayerChoice, sum_present
from espalier.nas.gates import Gates, Mixture
from espalier.nas.spaces.layers import FactorizedReduce, Noise, dil_conv, relu_conv_bn, sep_conv

Variant = Literal["S0", "S1", "S2", "S3", "S4", "S5"]
KINDS = ("normal", "reduce")
NODES = (2, 3, 4, 5)
"""Nodes 0 and 1 are a cell's inputs; its output is the concatenation of these."""

_OPERATIONS = {
    "none": "none",
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
    "noise": "noise",
}
_EVERY_EDGE = {
    "S0": "none|max|avg|skip|sep3|sep5|dil3|dil5",
    "S2": "skip|sep3",
    "S3": "none|skip|sep3",
    "S4": "noise|sep3",
    "S5": "max|avg|skip|sep3|sep5|dil3|dil5",
}
_S1 = {
    "normal": {
        2: "skip|dil3 skip|dil5",
        3: "skip|dil5 skip|sep3 skip|dil3",
        4: "max|skip skip|sep3 skip|sep3 skip|dil3",
        5: "skip|sep3 max|skip skip|dil3 dil3|dil5 dil3|dil5",
    },
    "reduce": {
        2: "max|avg max|dil3",
        3: "max|avg max|avg skip|dil5",
        4: "max|avg max|sep3 skip|dil3 skip|dil5",
        5: "max|avg max|avg skip|dil5 skip|dil5 skip|dil5",
    },
}


class Cell(nn.Module):
    """Two inputs, four nodes that each sum their kept edges, and the concatenated nodes as output.

    Args:
        variant: see `Darts`.
        kind: `normal` or `reduce`; in the latter, edges from the inputs have stride 2.
        channels_in: channels of the two inputs, the outputs of the two cells before.
        channels: of a node.
        reduced: whether the previous cell is a reduction, so that the first input is twice as large.
    """

    def __init__(
        self, variant: Variant, kind: str, channels_in: tuple[int, int], channels: int, *, reduced: bool
    ) -> None:
        super().__init__()
        self.stride = 2 if kind == "reduce" else 1
        before, last = channels_in
        self.preprocess0 = (
            FactorizedReduce(before, channels, affine=False)
            if reduced
            else relu_conv_bn(before, channels, 1, stride=1, affine=False)
        )
        self.preprocess1 = relu_conv_bn(last, channels, 1, stride=1, affine=False)
        self.nodes = nn.ModuleList(Node(variant, kind, node, channels, stride=self.stride) for node in NODES)

    def forward(self, before: Tensor, last: Tensor, gates: Gates) -> Tensor:
        states = [self.preprocess0(before), self.preprocess1(last)]
        for node in self.nodes:
            value = node(states, gates)
            states.append(torch.zeros_like(states[0][:, :, :: self.stride, :: self.stride]) if value is None else value)
        return torch.cat(states[2:], dim=1)


class Node(nn.Module):
    """A choice of operation for each earlier node and, from node 3 on, a choice of the two edges to keep.

    Edges that the gates do not keep are not run.

    Args:
        variant: see `Darts`.
        kind: of the cell.
        node: its index in the cell, 2 to 5.
        channels: of the node.
        stride: of the edges from the cell's inputs.
    """

    def __init__(self, variant: Variant, kind: str, node: int, channels: int, *, stride: int) -> None:
        super().__init__()
        names = [edge_name(kind, node, source) for source in range(node)]
        self.edges = nn.ModuleList()
        for source, (name, options) in enumerate(zip(names, operations(variant, kind, node), strict=True)):
            edge_stride = stride if source < 2 else 1
            layers = {o: operation(o, channels, stride=edge_stride) for o in options}
            self.edges.append(LayerChoice(name, layers, kept=node == 2))
        self.kept = InputChoice(node_name(kind, node), node, chosen=2, edges=names) if node > 2 else None

    def forward(self, states: Sequence[Tensor], gates: Gates) -> Tensor | None:
        """The sum of the kept edges, applied to the earlier nodes `states`; None if all operations are `none`."""
        if self.kept is None:
            return sum_present([edge(x, gates) for edge, x in zip(self.edges, states, strict=True)])
        gate = self.kept.gate(gates)
        sources = self.kept.inputs(gate.active if isinstance(gate, Mixture) else (gate,))
        terms = [self.edges[i](x, gates) if i in sources else None for i, x in enumerate(states)]
        return self.kept(terms, gates)


def edge_name(kind: str, node: int, source: int) -> str:
    """The name of the choice on the edge `node <- source`."""
    return f"{kind}_edge_{node}_{source}"


def node_name(kind: str, node: int) -> str:
    """The name of the choice of a node's kept edges."""
    return f"{kind}_node_{node}"


def operations(variant: Variant, kind: str, node: int) -> list[list[str]]:
    """The names of the operations of each edge into a node, by source, in the order of the papers."""
    edges = _S1[kind][node].split() if variant == "S1" else [_EVERY_EDGE[variant]] * node
    return [[_OPERATIONS[short] for short in edge.split("|")] for edge in edges]


def operation(name: str, channels: int, *, stride: int) -> nn.Module | None:
    """An operation of an edge, which keeps the image's height and width or halves them.

    Pooling is followed by a batch norm, so that the outputs of all operations have the same scale.

    Args:
        name: of the operation.
        channels: of input and output.
        stride: 1 or 2.

    Returns:
        The operation; None for `none`.
    """
    if name == "none":
        return None
    if name == "noise":
        return Noise(stride=stride)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine=False)
    if name == "max_pool_3x3":
        return nn.Sequential(nn.MaxPool2d(3, stride, padding=1), nn.BatchNorm2d(channels, affine=False))
    if name == "avg_pool_3x3":
        pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        return nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False))
    convolution = sep_conv if name.startswith("sep") else dil_conv
    return convolution(channels, int(name[-1]), stride=stride, affine=False)
