"""Weight decay of the effective weights of elastic layers, instead of the stored ones."""

from __future__ import annotations

import torch
from torch import Tensor

from espalier.nas.elastic.conv import ElasticConv2d
from espalier.nas.elastic.linear import ElasticLinear
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates
from espalier.nas.space import SearchSpace


class EffectiveDecay:
    """The penalty lambda / 2 ||W * M||^2 over all elastic layers, with W * M as `nas.elastic.dims.Coverage` has it.

    At stationary weights ordinary decay, lambda / 2 ||W||^2, gives the larger of two options of entangled weights the
    lower loss, even where it is of no use: dL/dtheta_big - dL/dtheta_small = -lambda / m ||W_ring||^2, with W_ring the
    weights that only the larger has, and m their coverage. Under this penalty, in the loss of the weights and in that
    of the architecture parameters, the difference is 0. It replaces the optimiser's decay.

    Args:
        space: the supernet.
        decay: lambda.

    Attributes:
        names: of the weights that it shrinks.

    Raises:
        UserError: the space has no elastic layers.
    """

    def __init__(self, space: SearchSpace, decay: float) -> None:
        found = {n: m for n, m in space.named_modules() if isinstance(m, ElasticConv2d | ElasticLinear)}
        if not found:
            problem = "effective needs elastic layers, which this space does not have"
            raise UserError("supernet.decay", problem, code="unsupported", allowed=("stored",))
        self._layers = tuple(found.values())
        self._decay = decay
        self.names = frozenset(f"{name}.weight" for name in found)

    def __call__(self, gates: Gates) -> Tensor:
        """The penalty under these gates, a scalar."""
        norms = torch._foreach_norm([layer.effective(gates)[0] for layer in self._layers])
        return self._decay / 2 * torch.stack(norms).square().sum()
