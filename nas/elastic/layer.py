"""The base classes of elastic layers, and gates on their activations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn

from espalier.nas.elastic.dims import Dim
from espalier.nas.gates import Gates

Mode = Literal["superpose", "gate"]
"""What a mixture of widths does.

`superpose` scales the weights: a layer's weight is the weighted sum of its parts, `sum_o theta_o P_o(W)`. A gate enters
once for each layer that reads or writes the dimension (Sukthanker et al., "Weight-Entanglement Meets
Gradient-Based Neural Architecture Search", 2024). `gate` uses the whole weights and multiplies activations by the
coverage, once, after the normalisation and the non-linearity (as Wan et al., "FBNetV2", CVPR 2020, mask channels). For
hidden units and heads that is the mixture of the outputs. Kernels are superposed in both modes.
"""


class Elastic(nn.Module, ABC):
    """A module of whose parameters each option uses a part; `forward` takes the gates as its last argument."""

    @abstractmethod
    def extract(self, gates: Gates) -> nn.Module | nn.Parameter:
        """The plain torch layer or parameter on a path, with a copy of its part of the weights."""


class ElasticLayer(Elastic):
    """An elastic layer: `forward(x, gates)`.

    Attributes:
        dims: the dims of its shapes, the input first.
    """

    dims: tuple[Dim, ...]

    @abstractmethod
    def extract(self, gates: Gates) -> nn.Module:
        """The plain torch layer on a path, with a copy of its part of the weights."""

    def input_size(self, gates: Gates) -> int:
        """Channels or features of the input on a path."""
        return self.dims[0].size(gates)

    def use_dims(self, *dims: Dim) -> None:
        """Register the dims of the shapes, the input first, so that their choices are found in the module tree."""
        self._dims = nn.ModuleList(dims)
        self.dims = dims


class ElasticGate(nn.Module):
    """Multiplies activations by the coverage of a dim in the mode `gate`; else it is the identity.

    Args:
        dim: the dim of the axis.
        mode: that of the surrounding layers.
        axis: axis of the activations.
    """

    def __init__(self, dim: Dim, *, mode: Mode, axis: int) -> None:
        super().__init__()
        self.dim = dim
        self._gates = mode == "gate"
        self._axis = axis

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        coverage = self.dim.extent(gates).coverage if self._gates else None
        if coverage is None:
            return x
        shape = [1] * x.dim()
        shape[self._axis] = len(coverage)
        return x * coverage.view(shape).to(x.dtype)


def copied(tensor: Tensor | None) -> nn.Parameter | None:
    """A copy of a tensor as a parameter; None for None."""
    return None if tensor is None else nn.Parameter(tensor.detach().clone())
