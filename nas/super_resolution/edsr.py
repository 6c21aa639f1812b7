"""EDSR: residual blocks without norms, then sub-pixel convolutions.

Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", https://arxiv.org/abs/1707.02921.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from espalier.nas.errors import UserError

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
"""Mean of each channel of DIV2K's training images, from 0 to 1; EDSR and SwinIR subtract and later add it."""
LEVELS = 255.0
"""The authors' networks compute in the range 0 to 255, which their weights depend on."""


class ResidualBlock(nn.Module):
    """x + residual_scale * conv(relu(conv(x))), all 3x3."""

    def __init__(self, channels: int, residual_scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(conv3x3(channels, channels), nn.ReLU(), conv3x3(channels, channels))
        self.residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        residual = self.body(x)
        return x + (residual if self.residual_scale == 1 else self.residual_scale * residual)


class EDSR(nn.Module):
    """Upscales RGB from 0 to 1, `(B, 3, h, w)`, to RGB `(B, 3, s h, s w)`, which is not clamped.

    The defaults are the authors' baseline. The network of the paper has 32 blocks of 256 channels, with residuals
    scaled by 0.1. Parameters have the names of the authors' code, whose two fixed convolutions for the mean colour are
    a buffer here.

    Args:
        scale: s, a power of two or 3.
        blocks: residual blocks.
        channels: of all hidden layers.
        residual_scale: factor of each block's residual, which stabilises wide networks.

    Raises:
        UserError: another scale.
    """

    mean: Tensor

    def __init__(
        self,
        scale: int,
        *,
        blocks: PositiveInt = 16,
        channels: PositiveInt = 64,
        residual_scale: Annotated[float, Field(gt=0, le=1)] = 1.0,
    ) -> None:
        super().__init__()
        self.head = nn.Sequential(conv3x3(3, channels))
        residuals = [ResidualBlock(channels, residual_scale) for _ in range(blocks)]
        self.body = nn.Sequential(*residuals, conv3x3(channels, channels))
        self.tail = nn.Sequential(sub_pixel(channels, scale), conv3x3(channels, 3))
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(LEVELS * (x - self.mean))
        return self.tail(x + self.body(x)) / LEVELS + self.mean


def sub_pixel(channels: int, scale: int) -> nn.Sequential:
    """Convolutions and pixel shuffles that upscale `(B, channels, h, w)` to `(B, channels, s h, s w)`.

    There is one step for each factor of two, or a single one for 3.

    Args:
        channels: of input and output.
        scale: s.

    Raises:
        UserError: the scale is neither 3 nor a power of two of at least 2.
    """
    if scale == 3:
        steps = [3]
    elif scale >= 2 and scale & (scale - 1) == 0:
        steps = [2] * (scale.bit_length() - 1)
    else:
        raise UserError("scale", f"must be 3 or a power of two of at least 2, not {scale}", code="out_of_range")
    return nn.Sequential(
        *(layer for step in steps for layer in (conv3x3(channels, step * step * channels), nn.PixelShuffle(step)))
    )


def conv3x3(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)
