"""The cell spaces of DARTS: two kinds of cell, four nodes in each, two incoming edges kept for each node.

Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019 (S0). Zela et al., "Understanding and
Robustifying Differentiable Architecture Search", ICLR 2020 (S1 to S4). Wang et al., "Rethinking Architecture
Selection in Differentiable NAS", ICLR 2021 (S5).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pydantic import PositiveInt
from torch import Tensor, fx, nn

from espalier.nas.architecture import Architecture, Option
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates
from espalier.nas.space import Edge, SearchSpace
from espalier.nas.spaces import genotype
from espalier.nas.spaces.darts_cell import KINDS, NODES, Cell, Variant, edge_name, node_name
from espalier.nas.spaces.layers import with_affine


class Darts(SearchSpace):
    """Stem, a stack of cells, head. The cells at one and two thirds halve the image and double the channels.

    All cells of a kind, normal or reduction, share their decisions: an operation for each of the fourteen edges
    `source -> node`, and which two incoming edges are kept, for each node with more than two of them. A cell reads the
    outputs of the two cells before it, and concatenates its four nodes. The batch norms in a supernet's cells have no
    scale and shift. Those of a built network do, except after pooling.

    Args:
        input_shape: `(channels, height, width)` of an image; height and width divisible by 4.
        num_classes: number of outputs.
        variant: the operations of an edge. S0 has those of the paper, S5 the same without `none`. S1 to S4 are the
            small spaces on which DARTS fails: S1 has two operations for each edge, S2 `skip_connect` and
            `sep_conv_3x3`, S3 these and `none`, S4 `noise` and `sep_conv_3x3`.
        channels: of the nodes in the first cells (papers: 16 in the search, 36 for the final network).
        cells: number of cells, at least 3 (papers: 8 in the search, 20 for the final network).

    Raises:
        UserError: height or width is not divisible by 4, or there are fewer than 3 cells.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        num_classes: int = 10,
        *,
        variant: Variant = "S5",
        channels: PositiveInt = 16,
        cells: PositiveInt = 8,
    ) -> None:
        super().__init__()
        if input_shape[1] % 4 or input_shape[2] % 4:
            size = "x".join(map(str, input_shape[1:]))
            raise UserError(
                "data.size", f"darts halves images twice, but {size} is not divisible by 4", code="unsupported"
            )
        if cells < 3:
            raise UserError(
                "space.cells",
                f"darts needs at least 3 cells, of which two are reduction cells, not {cells}",
                code="out_of_range",
            )
        self.input_shape = input_shape
        self.num_classes = num_classes
        before = last = 3 * channels
        self.stem = nn.Sequential(nn.Conv2d(input_shape[0], last, 3, padding=1, bias=False), nn.BatchNorm2d(last))
        self.cells = nn.ModuleList()
        reduced = False
        for index in range(cells):
            kind = "reduce" if index in (cells // 3, 2 * cells // 3) else "normal"
            channels *= 2 if kind == "reduce" else 1
            self.cells.append(Cell(variant, kind, (before, last), channels, reduced=reduced))
            before, last, reduced = last, len(NODES) * channels, kind == "reduce"
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, num_classes))

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        before = last = self.stem(x)
        for cell in self.cells:
            before, last = last, cell(before, last, gates)
        return self.head(last)

    def choice_groups(self) -> Sequence[Collection[str]]:
        """The choices of normal cells and those of reduction cells."""
        return [[name for name in self.choices() if name.startswith(kind)] for kind in KINDS]

    def to_stand_alone(self, network: fx.GraphModule) -> fx.GraphModule:
        """Gives the cells' batch norms a scale of 1 and a shift of 0, except those after pooling."""
        for name, module in list(network.named_modules()):
            if isinstance(module, nn.BatchNorm2d) and not module.affine and "_pool_" not in name:
                network.set_submodule(name, with_affine(module))
        return network

    def parse(self, text: str, *, where: str = "architecture") -> Architecture:
        """An architecture from the `Genotype(...)` of the papers, or from its JSON.

        A genotype does not contain the edges that are not kept; they get their first operation.

        Raises:
            UserError: neither of the two, or not of this space.
        """
        if text.lstrip().startswith("{"):
            return super().parse(text, where=where)
        options: dict[str, Option] = {name: choice.options[0] for name, choice in self.choices().items()}
        for kind, edges in genotype.read(text, where=where).items():
            for i, node in enumerate(NODES):
                kept = sorted(edges[2 * i : 2 * i + 2], key=lambda edge: edge[1])
                options.update({edge_name(kind, node, source): operation for operation, source in kept})
                if node > 2:
                    options[node_name(kind, node)] = tuple(source for _, source in kept)
        return self.check(Architecture(options), where=where)

    def format(self, architecture: Architecture) -> str:
        """The genotype of an architecture, or its JSON if it has more than a genotype can hold."""
        cells = {kind: [edge for node in NODES for edge in _kept(architecture, kind, node)] for kind in KINDS}
        text = genotype.write(cells)
        return text if self.parse(text) == architecture else architecture.to_json()

    def isomorphism_class(self, architecture: Architecture) -> str:
        """The kept edges by node, without those with the operation `none`, which are equivalent to edges not kept."""
        nodes = (
            "+".join(
                f"{operation}~{source}" for operation, source in _kept(architecture, kind, node) if operation != "none"
            )
            for kind in KINDS
            for node in NODES
        )
        return "|".join(nodes)

    def diagram(self, architecture: Architecture) -> list[Edge]:
        """The kept edges of a normal cell, followed by those of a reduction cell."""
        arrows: list[Edge] = []
        source, targets = "input", ("normal cell", "output")
        for kind, target in zip(KINDS, targets, strict=True):
            arrows += [(source, f"{kind} {i}", "") for i in (0, 1)]
            for node in NODES:
                kept = _kept(architecture, kind, node)
                arrows += [(f"{kind} {i}", f"{kind} {node}", operation) for operation, i in kept]
            arrows += [(f"{kind} {node}", target, "") for node in NODES]
            source = target
        return arrows


def _kept(architecture: Architecture, kind: str, node: int) -> list[tuple[str, int]]:
    """Operation and source of the two edges that a node keeps."""
    sources: Any = (0, 1) if node == 2 else architecture[node_name(kind, node)]
    return [(str(architecture[edge_name(kind, node, source)]), source) for source in sources]
