"""Elastic normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.nas.elastic.dims import Coverage, Dim
from espalier.nas.elastic.layer import ElasticLayer, Mode
from espalier.nas.gates import Gates


class ElasticBatchNorm2d(nn.BatchNorm2d, ElasticLayer):
    """A batch norm whose smaller versions use the leading channels of parameters and running statistics.

    Each channel is normalised alone, so with batch statistics a path computes what its own network would. Running
    statistics average over all paths and fit none of them. Under superposition, a mixture scales gamma and beta by the
    coverage: a scale before the norm would have no effect.

    Args:
        channels: the dim of the channels.
        eps: as for any batch norm.
        momentum: as for any batch norm.
        affine: as for any batch norm.
        mode: what a mixture of sizes does.
    """

    def __init__(
        self, channels: Dim, *, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True, mode: Mode
    ) -> None:
        super().__init__(channels.largest, eps, momentum, affine)
        self.use_dims(channels)
        self.mode = mode
        self._coverage = Coverage([channels] if mode == "superpose" else [])

    def forward(self, x: Tensor, gates: Gates) -> Tensor:  # type: ignore[override]
        """`(batch, channels, height, width)`, the same shape."""
        size = x.shape[1]
        if self.training and self.track_running_stats:
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        keeps = not self.training or self.track_running_stats
        weight, bias = (None, None) if self.weight is None else (self.weight[:size], self.bias[:size])
        if weight is not None and bias is not None:
            weight, bias = self._coverage.apply(weight, gates), self._coverage.apply(bias, gates)
        return F.batch_norm(
            x,
            self.running_mean[:size] if keeps else None,  # type: ignore[index]
            self.running_var[:size] if keeps else None,  # type: ignore[index]
            weight,
            bias,
            self.training,
            self.momentum,  # type: ignore[arg-type]
            self.eps,
        )

    def extract(self, gates: Gates) -> nn.BatchNorm2d:
        """The plain batch norm on a path."""
        size = self.dims[0].size(gates)
        layer = nn.BatchNorm2d(size, self.eps, self.momentum, self.affine).to(self.running_mean)
        state = {name: tensor if tensor.dim() == 0 else tensor[:size] for name, tensor in self.state_dict().items()}
        layer.load_state_dict(state)
        return layer


class ElasticLayerNorm(ElasticLayer):
    """A layer norm over the used features.

    In a mixture with coverage u, in both modes:

        mu = sum u x / sum u,    var = sum u (x - mu)^2 / sum u,    y = u (gamma (x - mu) / sqrt(var + eps) + beta)

    With one-hot gates these are the moments of the path's own features, without the zeros of the others.

    Args:
        features: the dim of the last axis.
        eps: as for any layer norm.
    """

    def __init__(self, features: Dim, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.use_dims(features)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(features.largest))
        self.bias = nn.Parameter(torch.zeros(features.largest))

    def reset_parameters(self) -> None:
        """Initialise gamma to 1 and beta to 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        """`(..., features)`, the same shape."""
        extent = self.dims[0].extent(gates)
        weight, bias = self.weight[: extent.size], self.bias[: extent.size]
        if extent.coverage is None:
            return F.layer_norm(x, (extent.size,), weight, bias, self.eps)
        u = extent.coverage
        share = u / u.sum()
        centred = x - (x @ share).unsqueeze(-1)
        variance = (centred.square() @ share).unsqueeze(-1)
        return torch.addcmul(u * bias, centred * torch.rsqrt(variance + self.eps), u * weight)

    def extract(self, gates: Gates) -> nn.LayerNorm:
        """The plain layer norm on a path."""
        size = self.dims[0].size(gates)
        layer = nn.LayerNorm(size, self.eps, device=self.weight.device, dtype=self.weight.dtype)
        layer.load_state_dict({"weight": self.weight[:size].detach(), "bias": self.bias[:size].detach()})
        return layer
