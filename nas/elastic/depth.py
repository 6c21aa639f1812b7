"""Elastic depth: the number of blocks of a stage that are run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from espalier.nas.choices import Choice, ElasticChoice
from espalier.nas.elastic.layer import Mode
from espalier.nas.gates import Gates, Mixture


class ElasticDepth(nn.Module):
    """Runs the first L of a sequence of blocks.

    In a mixture with weights theta of the depths L_1 < ... < L_n: `superpose` runs the deepest open one and returns
    the mixture of the outputs after each depth, `sum_i theta_i x_(L_i)`; `gate` scales the branch F_l of each block (l
    from 0), `x_(l+1) = x_l + v_l F_l(x_l)` with `v_l = sum of theta_i with L_i > l`, and needs one stream only. With
    one-hot gates both run the first L blocks.

    Args:
        choice: the choice of depth.
        blocks: as many as the largest depth. They are called as `block(x, gates, strength)` and must scale their
            branches by the strength, which is None if every open depth runs the block.
        mode: what a mixture of depths does.

    Raises:
        ValueError: the depths do not match the number of blocks.
    """

    def __init__(self, choice: ElasticChoice, blocks: Sequence[nn.Module], *, mode: Mode) -> None:
        super().__init__()
        depths = choice.options
        if depths[-1] != len(blocks) or depths[0] < 1:
            raise ValueError(f"choice {choice.name}: depths {depths} do not match {len(blocks)} blocks")
        self.choice = choice
        self.blocks = nn.ModuleList(blocks)
        self.mode = mode

    def conditions(self) -> Mapping[str, tuple[Choice, frozenset[int]]]:
        """The depths for which each block is run."""
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
