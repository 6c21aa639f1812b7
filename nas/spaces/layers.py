"""Layers of cell-based spaces. Convolutions have no bias, and a batch norm follows them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def relu_conv_bn(channels_in: int, channels_out: int, kernel: int, *, stride: int, affine: bool) -> nn.Sequential:
    """ReLU, convolution without bias, batch norm."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out, affine=affine),
    )


def dil_conv(channels: int, kernel: int, *, stride: int, affine: bool, dilation: int = 2) -> nn.Sequential:
    """ReLU, dilated depthwise convolution, 1x1 convolution, batch norm."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


def sep_conv(channels: int, kernel: int, *, stride: int, affine: bool) -> nn.Sequential:
    """A depthwise separable convolution, twice (Zoph et al., "Learning Transferable Architectures", 2018)."""
    return nn.Sequential(
        *dil_conv(channels, kernel, stride=stride, affine=affine, dilation=1),
        *dil_conv(channels, kernel, stride=1, affine=affine, dilation=1),
    )


class FactorizedReduce(nn.Module):
    """ReLU, two concatenated 1x1 convolutions of stride 2, the second shifted by one pixel, and batch norm.

    It halves height and width, which must be even.

    Args:
        channels_in: of the input.
        channels_out: of the output, even.
        affine: whether the batch norm has a scale and a shift.
    """

    def __init__(self, channels_in: int, channels_out: int, *, affine: bool) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(channels_in, channels_out // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(channels_in, channels_out // 2, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(channels_out, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))


class Noise(nn.Module):
    """Noise from N(0, 1) in the shape of the strided input, drawn from torch's global generator."""

    def __init__(self, *, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x[:, :, :: self.stride, :: self.stride])


def with_affine(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """A copy of a batch norm with a scale of 1 and a shift of 0."""
    buffer = next(norm.buffers())
    affine = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, device=buffer.device, dtype=buffer.dtype)
    affine.load_state_dict(norm.state_dict(), strict=False)
    return affine.train(norm.training)
