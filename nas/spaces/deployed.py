"""A search space whose networks also have a precision and a sparsity, so that all three are searched together.

Precision and sparsity are two more choices, so samplers, surrogates, ids and run folders work as usual. They have no
effect on the forward pass: a supernet is trained without them. They are applied when a network is exported, as the
format of its file and as zeros in its weights.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Literal, cast

import torch
from torch import Tensor, fx

from espalier.nas.architecture import Architecture
from espalier.nas.choices import ValueChoice
from espalier.nas.gates import Gates
from espalier.nas.space import Edge, SearchSpace

Precision = Literal["fp32", "int8"]
PRECISION, SPARSITY = "precision", "sparsity"
_NOTATION = re.compile(
    r"(?P<network>.*) in (?P<precision>fp32|int8) with sparsity (?P<sparsity>\d[-+.e\d]*)", re.DOTALL
)


class Deployed(SearchSpace):
    """The networks of another space, each in every precision at every sparsity.

    Args:
        network_space: the space to wrap, whose weights are used.
        precision: the available precisions; the first one is used if the notation of an architecture has none.
        sparsity: the available shares of zeros among the prunable weights; likewise.

    Raises:
        ValueError: the wrapped space has a choice with one of these names.
    """

    def __init__(
        self,
        network_space: SearchSpace,
        *,
        precision: Sequence[Precision] = ("fp32",),
        sparsity: Sequence[float] = (0.0,),
    ) -> None:
        super().__init__()
        if {PRECISION, SPARSITY} & network_space.choices().keys():
            raise ValueError(f"the space has a choice {PRECISION} or {SPARSITY} of its own")
        self.input_shape, self.num_classes = network_space.input_shape, network_space.num_classes
        self.network_space = network_space
        self.precision = ValueChoice(PRECISION, tuple(precision))
        self.sparsity = ValueChoice(SPARSITY, tuple(map(float, sparsity)))

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        return cast(Tensor, self.network_space(x, gates))

    def network(self, architecture: Architecture) -> Architecture:
        """The architecture in the wrapped space, without precision and sparsity."""
        own = (PRECISION, SPARSITY)
        return Architecture({name: option for name, option in architecture.items() if name not in own})

    def with_deployment(self, network: Architecture, precision: str, sparsity: float) -> Architecture:
        """The architecture of this space, from one of the wrapped space; the inverse of `network`.

        Args:
            network: an architecture of the wrapped space.
            precision: one of the available ones.
            sparsity: one of the available ones.
        """
        return Architecture({**network, PRECISION: precision, SPARSITY: sparsity})

    def choice_groups(self) -> Sequence[Collection[str]]:
        return [*self.network_space.choice_groups(), [PRECISION, SPARSITY]]

    def sample(self, generator: torch.Generator) -> Architecture:
        network = self.network_space.sample(generator)
        drawn = [
            choice.options[int(torch.randint(len(choice.options), (), generator=generator))]
            for choice in (self.precision, self.sparsity)
        ]
        return self.with_deployment(network, str(drawn[0]), cast(float, drawn[1]))

    def mutate(self, architecture: Architecture, generator: torch.Generator) -> Architecture:
        for _ in range(100):  # with further constraints in the space, not every neighbour is valid
            mutant = super().mutate(architecture, generator)
            if self.contains(mutant):
                return mutant
        return self.sample(generator)

    def contains(self, architecture: Architecture) -> bool:
        return self.network_space.contains(self.network(architecture))

    def parse(self, text: str, *, where: str = "architecture") -> Architecture:
        found = _NOTATION.fullmatch(text)
        if found is None:
            network = self.network_space.parse(text, where=where)
            defaults = str(self.precision.options[0]), cast(float, self.sparsity.options[0])
            return self.with_deployment(network, *defaults)
        network = self.network_space.parse(found["network"], where=where)
        return self.check(self.with_deployment(network, found["precision"], float(found["sparsity"])), where=where)

    def format(self, architecture: Architecture) -> str:
        network = self.network_space.format(self.network(architecture))
        return f"{network} in {architecture[PRECISION]} with sparsity {architecture[SPARSITY]}"

    def inactive(self, architecture: Architecture) -> Collection[str]:
        return self.network_space.inactive(self.network(architecture))

    def isomorphism_class(self, architecture: Architecture) -> str:
        name = self.network_space.isomorphism_class(self.network(architecture))
        return f"{name} in {architecture[PRECISION]} with sparsity {architecture[SPARSITY]}"

    def diagram(self, architecture: Architecture) -> list[Edge]:
        return self.network_space.diagram(self.network(architecture))

    def build(self, architecture: Architecture, *, weights: Literal["fresh", "inherited"] = "fresh") -> fx.GraphModule:
        """The plain network, dense and in float32; see `SearchSpace.build`."""
        network = self.network(self.check(architecture))
        return self.network_space.build(network, weights=weights).train(self.training)
