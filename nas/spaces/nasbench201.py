"""NAS-Bench-201: a cell of four nodes and six edges with five operations each, 15,625 cells.

Dong & Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR 2020.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from pydantic import PositiveInt
from torch import Tensor, fx, nn

from espalier.nas.architecture import Architecture
from espalier.nas.choices import LayerChoice, sum_present
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates
from espalier.nas.space import ABSENT, ADDED, REPEATED, Edge, SearchSpace
from espalier.nas.spaces.layers import relu_conv_bn, with_affine

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2))
"""(target, source) in the order of the benchmark's strings: 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2."""
ZEROS = "zeros"


class NasBench201(SearchSpace):
    """Stem, three stages of equal cells with a residual block of stride 2 between them, head.

    The stages have `channels`, twice and four times as many channels. All cells share their six decisions. With the
    defaults and ten classes, a built network has exactly the parameters of the benchmark,
    73,306 + 243,040 n(3x3) + 28,000 n(1x1), where n counts edges.

    Args:
        input_shape: `(channels, height, width)` of an image; height and width divisible by 4.
        num_classes: number of outputs.
        channels: width of the first stage (benchmark: 16).
        cells: cells in each stage (benchmark: 5).
        affine: whether the batch norms inside the supernet's cells have a scale and a shift. The networks that
            `build` returns always have them.

    Raises:
        UserError: height or width is not divisible by 4.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        num_classes: int = 10,
        *,
        channels: PositiveInt = 16,
        cells: PositiveInt = 5,
        affine: bool = False,
    ) -> None:
        super().__init__()
        if input_shape[1] % 4 or input_shape[2] % 4:
            size = "x".join(map(str, input_shape[1:]))
            raise UserError(
                "data.size", f"nasbench201 halves images twice, but {size} is not divisible by 4", code="unsupported"
            )
        self.input_shape = input_shape
        self.num_classes = num_classes
        self.stem = nn.Sequential(
            nn.Conv2d(input_shape[0], channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        body: list[nn.Module] = []
        for stage in range(3):
            width = channels * 2**stage
            if stage:
                body.append(ResidualBlock(width // 2, width))
            body.extend(Cell(width, affine=affine) for _ in range(cells))
        self.body = nn.ModuleList(body)
        width = channels * 4
        self.head = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, num_classes),
        )

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        x = self.stem(x)
        for block in self.body:
            x = block(x, gates) if isinstance(block, Cell) else block(x)
        return self.head(x)

    def to_stand_alone(self, network: fx.GraphModule) -> fx.GraphModule:
        """Gives the cells' batch norms a scale of 1 and a shift of 0, as in the networks of the benchmark."""
        for name, module in list(network.named_modules()):
            if isinstance(module, nn.BatchNorm2d) and not module.affine:
                network.set_submodule(name, with_affine(module))
        return network

    def parse(self, text: str, *, where: str = "architecture") -> Architecture:
        """An architecture from the benchmark's notation `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.

        Raises:
            UserError: another shape, or an unknown operation.
        """
        nodes = [re.findall(r"([^|~]+)~(\d+)", node) for node in text.strip().split("+")]
        if [(i + 1, int(j)) for i, node in enumerate(nodes) for _, j in node] != list(EDGES):
            raise UserError(where, f"{text!r} is not of the form |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
        operations = [operation for node in nodes for operation, _ in node]
        for operation in operations:
            if operation not in OPERATIONS:
                raise UserError(where, f"unknown operation {operation!r}", allowed=OPERATIONS, given=operation)
        architecture = Architecture({edge_name(*edge): op for edge, op in zip(EDGES, operations, strict=True)})
        if self.format(architecture) != text.strip():
            raise UserError(where, f"{text!r} is not of the form |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
        return architecture

    def format(self, architecture: Architecture) -> str:
        """The benchmark's notation of an architecture."""
        nodes = ["".join(f"|{architecture[edge_name(i, j)]}~{j}" for j in range(i)) + "|" for i in (1, 2, 3)]
        return "+".join(nodes)

    def isomorphism_class(self, architecture: Architecture) -> str:
        """The cell as an expression of its input `0`; cells with equal expressions compute the same function.

        A skip connection is written as its source, an edge without signal as `#`, and the summands of a node are
        sorted. These are the rules of the benchmark, and give exactly its 6,466 classes. Nested sums are not flattened,
        so some cells of different classes still compute the same function.
        """
        nodes = ["0"]
        for i in (1, 2, 3):
            summands = []
            for j in range(i):
                operation = architecture[edge_name(i, j)]
                if operation == "none" or nodes[j] == "#":
                    summands.append("#")
                else:
                    summands.append(nodes[j] if operation == "skip_connect" else f"({nodes[j]})@{operation}")
            nodes.append("+".join(sorted(summands)))
        return nodes[-1]

    def states(self, architecture: Architecture) -> Mapping[str, str]:
        """How runtimes execute the edges of a cell.

        Edges into nodes that nothing reads are absent, and a pool of a node that another edge pools is repeated. All
        but one of the edges into a node are added; runtimes fuse these additions into convolutions, so the remaining
        edge is not a convolution if there is a choice. Operators on a node without edges have the state `zeros`: such
        zeros lack the layout that runtimes keep between convolutions, and pooling them takes many times as long.
        """
        operation = {edge: str(architecture[edge_name(*edge)]) for edge in EDGES}
        kept = [edge for edge in EDGES if operation[edge] != "none"]
        read = {3}
        for target in (2, 1):
            if any(i in read for i, j in kept if j == target):
                read.add(target)
        states: dict[str, str] = {}
        value = {0: "0"}  # the value of each node as an expression; equal expressions are equal values
        pooled: set[str] = set()
        for node in (1, 2, 3):
            summands = []
            inputs = [edge for edge in kept if edge[0] == node]
            first = min(inputs, key=lambda edge: operation[edge].startswith("nor_conv"), default=None)
            for edge in inputs:
                of = value[edge[1]]
                made = {"skip_connect": of, "avg_pool_3x3": f"pool({of})"}.get(operation[edge], f"{edge}({of})")
                summands.append(made)
                words = {ADDED} if edge != first else set()
                if operation[edge] == "avg_pool_3x3" and made in pooled:
                    words.add(REPEATED)
                elif of == ZEROS:
                    words.add(ZEROS)
                if node not in read:
                    words = {ABSENT}
                elif operation[edge] == "avg_pool_3x3":
                    pooled.add(made)
                if words:
                    states[edge_name(*edge)] = " ".join(sorted(words))
            value[node] = "+".join(sorted(summands)) or ZEROS
        return states

    def dependencies(self, name: str) -> Collection[str]:
        """All other edges of the cell."""
        return [edge for edge in self.choices() if edge != name]

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The six edges of the cell; node 0 is its input, node 3 its output."""
        label = ("input", "1", "2", "output")
        return [(label[j], label[i], str(architecture[edge_name(i, j)])) for i, j in EDGES]


class Cell(nn.Module):
    """Node 0 is the input, each later node the sum of its incoming edges, node 3 the output."""

    def __init__(self, channels: int, *, affine: bool) -> None:
        super().__init__()
        self.edges = nn.ModuleDict(
            {edge_name(i, j): LayerChoice(edge_name(i, j), operations(channels, affine=affine)) for i, j in EDGES}
        )

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        nodes = [x]
        for i in (1, 2, 3):
            node = sum_present([self.edges[edge_name(i, j)](nodes[j], gates) for j in range(i)])
            nodes.append(torch.zeros_like(x) if node is None else node)
        return nodes[-1]


class ResidualBlock(nn.Module):
    """The basic block of a ResNet with stride 2; its shortcut is a 2x2 average pool and a 1x1 convolution."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *relu_conv_bn(channels_in, channels_out, 3, stride=2, affine=True),
            *relu_conv_bn(channels_out, channels_out, 3, stride=1, affine=True),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels_in, channels_out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.convolutions(x)


def edge_name(target: int, source: int) -> str:
    """The name of the choice on the edge `target <- source`."""
    return f"edge_{target}_{source}"


def operations(channels: int, *, affine: bool) -> Mapping[str, nn.Module | None]:
    """The five operations of an edge, which all keep the shape of their input."""
    return {
        "none": None,
        "skip_connect": nn.Identity(),
        "nor_conv_1x1": relu_conv_bn(channels, channels, 1, stride=1, affine=affine),
        "nor_conv_3x3": relu_conv_bn(channels, channels, 3, stride=1, affine=affine),
        "avg_pool_3x3": nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False),
    }
