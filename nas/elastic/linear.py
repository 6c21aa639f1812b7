"""Elastic linear layers, and parameters that are added to activations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.nas.elastic.dims import Coverage, Dim, as_dim, fixed
from espalier.nas.elastic.layer import Elastic, ElasticLayer, Mode, copied
from espalier.nas.gates import Gates


class ElasticLinear(ElasticLayer):
    """A linear layer whose smaller versions use the leading features.

    Args:
        inputs: features.
        outputs: features.
        bias: whether there is a bias.
        mode: what a mixture of sizes does.
    """

    def __init__(self, inputs: int | Dim, outputs: int | Dim, *, bias: bool = True, mode: Mode) -> None:
        super().__init__()
        into, out = as_dim(inputs), as_dim(outputs)
        self.use_dims(into, out)
        self.mode = mode
        self.weight = nn.Parameter(torch.empty(out.largest, into.largest))
        self.bias = nn.Parameter(torch.empty(out.largest)) if bias else None
        self._coverage = Coverage([out, into] if mode == "superpose" else [])
        self._bias_coverage = Coverage([out] if mode == "superpose" else [])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as torch does, at the largest size."""
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        if self.bias is not None:
            bound = self.weight.shape[1] ** -0.5
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        """`(..., inputs)` to `(..., outputs)`."""
        weight, bias = self.effective(gates)
        return F.linear(x, weight, bias)

    def effective(self, gates: Gates) -> tuple[Tensor, Tensor | None]:
        """The weight and bias under these gates."""
        weight, bias = self._cut(gates)
        weight = self._coverage.apply(weight, gates)
        return weight, None if bias is None else self._bias_coverage.apply(bias, gates)

    def extract(self, gates: Gates) -> nn.Linear:
        """The plain linear layer on a path."""
        weight, bias = self._cut(gates)
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        layer.weight, layer.bias = copied(weight), copied(bias)  # type: ignore[assignment]
        return layer

    def _cut(self, gates: Gates) -> tuple[Tensor, Tensor | None]:
        into, out = (dim.size(gates) for dim in self.dims)
        return self.weight[:out, :into], None if self.bias is None else self.bias[:out]


class ElasticParameter(Elastic):
    """A parameter whose last axis is elastic, such as position embeddings.

    Args:
        shape: the sizes of the other axes.
        features: the dim of the last axis.
        std: of the truncated normal initialisation.
        mode: what a mixture of sizes does.
    """

    def __init__(self, shape: Sequence[int], features: Dim, *, std: float, mode: Mode) -> None:
        super().__init__()
        self.features = features
        self.std = std
        self.weight = nn.Parameter(torch.empty(*shape, features.largest))
        before = [fixed(size) for size in shape]
        self._coverage = Coverage([*before, features] if mode == "superpose" else [])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise from N(0, std^2), truncated at two standard deviations."""
        nn.init.trunc_normal_(self.weight, std=self.std)

    def forward(self, gates: Gates) -> Tensor:
        """The parameter under these gates, `(*shape, features)`."""
        return self._coverage.apply(self.weight[..., : self.features.size(gates)], gates)

    def extract(self, gates: Gates) -> nn.Parameter:
        """The part of the parameter on a path."""
        return nn.Parameter(self.weight[..., : self.features.size(gates)].detach().clone())
