"""Elastic depth: how many of the blocks of a stage are run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from espalier.nas.choices import Choice, ElasticChoice
from espalier.nas.elastic.layer import Mode
from espalier.nas.gates import Gates, Mixture


class ElasticDepth(nn.Module):
    """The first L of some blocks, in a row.

    In a mixture with weights theta of the depths L_1 < ... < L_n: `superpose` runs the deepest that is open and returns
    `sum_i theta_i x_(L_i)` of what comes out after each depth; `gate` scales the branch F_l of each block (l from 0),
    `x_(l+1) = x_l + v_l F_l(x_l)` with `v_l = sum of theta_i with L_i > l`, and needs one stream only. At one-hot gates
    both are the first L blocks.

    Args:
        choice: between depths.
        mode: what a mixture does.
        blocks: as many as the largest depth; called `block(x, gates, strength)`, with a strength other than None
            to scale their branches by, where not every open depth runs them.
    """

    def __init__(self, choice: ElasticChoice, blocks: Sequence[nn.Module], *, mode: Mode) -> None:
        super().__init__()
        depths = choice.options
        if depths[-1] != len(blocks) or depths[0] < 1:
            raise ValueError(f"choice {choice.name}: depths {depths} for {len(blocks)} blocks")
        self.choice = choice
        self.blocks = nn.ModuleList(blocks)
        self.mode = mode

    def conditions(self) -> Mapping[str, tuple[Choice, frozenset[int]]]:
        """The depths by which each block is run."""
        depths = self.choice.options
        return {
            f"blocks.{index}": (self.choice, frozenset(i for i, depth in enumerate(depths) if depth > index))
            for index in range(len(self.blocks))
        }

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        gate = self.choice.gate(gates)
        if not isinstance(gate, Mixture):
            for block in self.blocks[: int(self.choice.options[gate])]:
                x = block(x, gates, None)
            return x
        depths = {int(self.choice.options[i]): i for i in gate.active}
        mixed: list[Tensor] = []
        for index, block in enumerate(self.blocks[: max(depths)]):
            deeper = [gate.weights[i] for depth, i in depths.items() if depth > index]
            gated = self.mode == "gate" and len(deeper) < len(depths)
            x = block(x, gates, sum(deeper) if gated else None)
            if self.mode == "superpose" and index + 1 in depths:
                mixed.append(gate.weights[depths[index + 1]] * x)
        return x if self.mode == "gate" else sum(mixed[1:], start=mixed[0])
