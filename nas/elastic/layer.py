"""What every elastic layer is: a layer that reads gates, and of which a path leaves a plain one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn

from espalier.nas.elastic.dims import Dim
from espalier.nas.gates import Gates

Mode = Literal["superpose", "gate"]
"""What a mixture of widths does.

`superpose` scales the weights: a layer's weight is the weighted sum of its parts, `sum_o theta_o P_o(W)`, which a gate
enters once for each layer that reads or writes the dimension (Sukthanker et al., "Weight-Entanglement Meets
Gradient-Based Neural Architecture Search", 2024). `gate` leaves the weights whole and multiplies activations by the
coverage, once, after the normalisation and the non-linearity (as Wan et al., "FBNetV2", CVPR 2020, mask channels): for
hidden units and heads that is the mixture of the outputs. Kernels are superposed in both.
"""


class Elastic(nn.Module, ABC):
    """Something with parameters of which every choice uses a part; its forward pass takes the gates last."""

    @abstractmethod
    def extract(self, gates: Gates) -> nn.Module | nn.Parameter:
        """The plain torch layer, or the parameter, of a path, with copies of its part of the weights."""


class ElasticLayer(Elastic):
    """An elastic layer: `forward(x, gates)`.

    Attributes:
        dims: what its shapes depend on, the input first.
    """

    dims: tuple[Dim, ...]

    @abstractmethod
    def extract(self, gates: Gates) -> nn.Module:
        """The plain torch layer of a path, with copies of its part of the weights."""

    def input_size(self, gates: Gates) -> int:
        """Channels or features of its input on a path."""
        return self.dims[0].size(gates)

    def use_dims(self, *dims: Dim) -> None:
        """Register what the shapes depend on, the input first, so that the choices are found in the module tree."""
        self._dims = nn.ModuleList(dims)
        self.dims = dims


class ElasticGate(nn.Module):
    """Multiplies by the coverage of a dim, where mixtures are gated; passes its input on otherwise.

    Args:
        dim: of the axis.
        mode: of the layers around.
        axis: of the activations.
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
    """A part of a parameter as a parameter of its own."""
    return None if tensor is None else nn.Parameter(tensor.detach().clone())
