"""Choices: decisions inside an ordinary `nn.Module`, made by gates.

A choice is identified by its name. Several modules may have the same name, as the cells of a cell-based space share
their decisions; they must then offer the same options.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from espalier.nas.architecture import Option
from espalier.nas.gates import Gate, Gates, Mixture

Joint = tuple[int, ...]
"""One option of each of several choices, by its index."""


class Choice(nn.Module):
    """A named decision between options, read from `gates[name]` at each forward pass.

    Args:
        name: not empty, without dots.
        options: at least one, all different.

    Raises:
        ValueError: another name or other options.
    """

    def __init__(self, name: str, options: Sequence[Option]) -> None:
        super().__init__()
        if not name or "." in name:
            raise ValueError(f"a choice's name is not empty and has no dot: {name!r}")
        if len(set(options)) != len(options) or not options:
            raise ValueError(f"choice {name}: options must be different and at least one: {list(options)}")
        self.name = name
        self.options = tuple(options)

    def gate(self, gates: Gates) -> Gate:
        """This choice's gate.

        Raises:
            KeyError: `gates` has no gate for it.
            IndexError: the gate does not match the number of options.
        """
        gate = gates[self.name]
        size = len(gate.weights) if isinstance(gate, Mixture) else gate + 1
        if size > len(self.options) or size < 1 or (isinstance(gate, Mixture) and size != len(self.options)):
            raise IndexError(f"choice {self.name} has {len(self.options)} options, the gate is for {size}")
        return gate

    def extra_repr(self) -> str:
        return f"{self.name}: {list(self.options)}"


class LayerChoice(Choice):
    """A choice of operation: runs one of several candidate modules, or a weighted sum of their outputs.

    Args:
        name: the choice's name.
        candidates: the operations by option name. `None` stands for the zero operation (`none`, `zero`). It is never
            run; the forward pass returns `None` for it, which sums leave out.
        kept: whether the choice is an edge that its node always keeps, while other nodes choose between edges with an
            `InputChoice`.
    """

    def __init__(self, name: str, candidates: Mapping[str, nn.Module | None], *, kept: bool = False) -> None:
        super().__init__(name, tuple(candidates))
        self.kept = kept
        self.candidates = nn.ModuleDict({key: layer for key, layer in candidates.items() if layer is not None})

    def forward(self, x: Tensor, gates: Gates) -> Tensor | None:
        """The output of the chosen operation, or of the mixture; `None` for the zero operation."""
        return weighted_sum(self.gate(gates), lambda index: self.run(index, x))

    def is_zero(self, index: int) -> bool:
        """Whether an option is the zero operation."""
        return str(self.options[index]) not in self.candidates

    def run(self, index: int, x: Tensor) -> Tensor | None:
        """The output of one option, regardless of gates."""
        return None if self.is_zero(index) else self.candidates[str(self.options[index])](x)


class InputChoice(Choice):
    """A choice of inputs: sums `chosen` out of `inputs` tensors of one shape.

    Every subset of that size is an option (a tuple of increasing indices), so every architecture has the right number
    of incoming edges by construction.

    Args:
        name: the choice's name.
        inputs: how many tensors there are.
        chosen: how many of them are summed.
        edges: the names of the layer choices that compute the inputs, in order, if there are any. Then the strengths
            of these edges decide (Liu et al., DARTS, section 2.4), and a supernet in training sums all inputs.
    """

    def __init__(self, name: str, inputs: int, chosen: int = 1, *, edges: Sequence[str] | None = None) -> None:
        self.subsets = tuple(combinations(range(inputs), chosen))
        super().__init__(name, self.subsets)
        if edges is not None and len(edges) != inputs:
            raise ValueError(f"choice {name}: {len(edges)} edges for {inputs} inputs")
        self.edges = None if edges is None else tuple(edges)

    def forward(self, inputs: Sequence[Tensor | None], gates: Gates) -> Tensor | None:
        """The sum of the chosen inputs; of a mixture, input i with weight `sum_{S active, i in S} weights[S]`."""
        gate = self.gate(gates)
        if not isinstance(gate, Mixture):
            return sum_present([inputs[i] for i in self.subsets[gate]])
        terms = []
        for i, x in enumerate(inputs):
            weight = sum_present([gate.weights[index] for index in gate.active if i in self.subsets[index]])
            if x is not None and weight is not None:
                terms.append(weight * x)
        return sum_present(terms)

    def inputs(self, allowed: Sequence[int]) -> frozenset[int]:
        """The inputs that are in at least one of the allowed subsets."""
        return frozenset(i for index in allowed for i in self.subsets[index])

    def open(self, allowed: Sequence[int]) -> Mixture:
        """A gate that sums every input of the allowed subsets once, if these are all subsets of their inputs.

        Each subset has the weight `1 / C(m - 1, k - 1)`: among all subsets of k out of m inputs, that is how many
        contain a given input.
        """
        weight = 1 / math.comb(len(self.inputs(allowed)) - 1, len(self.subsets[0]) - 1)
        return Mixture(torch.full((len(self.subsets),), weight), tuple(allowed))

    def without(self, allowed: Sequence[int], dropped: int) -> tuple[int, ...]:
        """The allowed subsets that do not contain the input `dropped`."""
        return tuple(index for index in allowed if dropped not in self.subsets[index])


class ValueChoice(Choice):
    """A choice of value: a width, a kernel size, a number of heads, a depth.

    The forward pass returns the chosen value on a single path. What a mixture of values means is up to the elastic
    layer that reads the choice through `gate`.
    """

    def forward(self, gates: Gates) -> Option:
        """The chosen value.

        Raises:
            TypeError: the gate is a mixture.
        """
        gate = self.gate(gates)
        if isinstance(gate, Mixture):
            raise TypeError(f"choice {self.name}: a single value was asked for, the gate is a mixture")
        return self.options[gate]


class ElasticChoice(ValueChoice):
    """A choice of value for elastic layers (`espalier.nas.elastic`), which define what a mixture of options means.

    Args:
        name: the choice's name.
        options: numbers in increasing order; a layer of one size is a part of the layer of the next size.

    Raises:
        ValueError: the options do not increase.
    """

    options: tuple[float, ...]

    def __init__(self, name: str, options: Sequence[float]) -> None:
        super().__init__(name, options)
        if list(options) != sorted(options):
            raise ValueError(f"choice {name}: options must increase: {list(options)}")


def weighted_sum(gate: Gate, run: Callable[[int], Tensor | None]) -> Tensor | None:
    """`run(gate)` on a path, `sum_{o active} weights[o] * run(o)` for a mixture; `None` terms are left out."""
    if not isinstance(gate, Mixture):
        return run(gate)
    outputs = ((index, run(index)) for index in gate.active)
    return sum_present([gate.weights[index] * y for index, y in outputs if y is not None])


def sum_present(terms: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of the terms that are not `None`; `None` if all are."""
    present = [term for term in terms if term is not None]
    if not present:
        return None
    result = present[0]
    for term in present[1:]:
        result = result + term
    return result
