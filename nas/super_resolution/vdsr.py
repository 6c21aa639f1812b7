"""VDSR: a deep plain network that predicts the residual of bicubic interpolation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from espalier.nas.super_resolution.edsr import conv3x3


class ConvReLU(nn.Module):
    """A convolution without bias, then ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv3x3(inputs, outputs, bias=False)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(x))


class VDSR(nn.Module):
    """Refines the Y of an upscaled image from 0 to 1, `(B, 1, H, W)`; see `Pairs.upscaled_luma`.

    Kim et al., "Accurate Image Super-Resolution Using Very Deep Convolutional Networks",
    https://arxiv.org/abs/1511.04587: 20 layers of 64 channels, initialised after He et al., without biases. One set of
    weights is used for all scales.

    Args:
        layers: number of convolutions.
        channels: of the hidden layers.
    """

    on_luma = True

    def __init__(self, *, layers: Annotated[int, Field(ge=2)] = 20, channels: PositiveInt = 64) -> None:
        super().__init__()
        self.input = conv3x3(1, channels, bias=False)
        self.relu = nn.ReLU()
        self.residual_layer = nn.Sequential(*(ConvReLU(channels, channels) for _ in range(layers - 2)))
        self.output = conv3x3(channels, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return x + self.output(self.residual_layer(self.relu(self.input(x))))
