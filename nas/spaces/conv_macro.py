"""The convolutional space of TangleNAS: four convolutions, each with a width and a kernel size, 6,561 networks.

Sukthanker, Krishnakumar, Safari & Hutter, "Weight-Entanglement Meets Gradient-Based Neural Architecture Search", 2024.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from espalier.nas.choices import ElasticChoice
from espalier.nas.elastic.conv import ElasticConv2d, kernel_dim
from espalier.nas.elastic.dims import Dim, as_dim
from espalier.nas.elastic.layer import ElasticGate, Mode
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.options import Kernels

CHANNELS = ((8, 16, 32), (16, 32, 64), (32, 64, 128), (64, 128, 256))
"""Channels of each searched convolution to choose from."""
FIXED_CHANNELS = 256
"""Channels of the last convolution."""
HIDDEN = (256, 128, 64)
"""Features of the classifier's hidden layers."""
POOLED = (1, 2)
"""The convolutions, counted from 0, that are followed by a max-pool."""


class ConvMacro(SearchSpace):
    """Four searched convolutions and a fixed one, three hidden layers, and the output layer; without norms.

    Choices `channels_1`, `kernel_1`, ..., `kernel_4`. After the second and the third convolution a max-pool halves
    height and width; dropout of whole channels follows the third and the fixed one, whose 7x7 kernel has a padding of
    2. Images of 32 x 32 pixels give 256 x 6 x 6 features. Dropout depends on the open channels, so mixtures and
    paths compute the same only in evaluation mode, or with `dropout` 0.

    Args:
        input_shape: `(channels, height, width)` of an image.
        num_classes: number of outputs.
        width: factor of all channels and hidden features.
        kernels: kernel sizes to choose from, odd numbers.
        dropout: probability.
        reductions: number of max-pools; with one, the first is left out.
        entanglement: what a mixture of widths does, see `espalier.nas.elastic.layer.Mode`.

    Raises:
        UserError: the width is so small that two numbers of channels coincide, or the images are too small.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        num_classes: int = 10,
        *,
        width: PositiveFloat = 1.0,
        kernels: Kernels = (3, 5, 7),
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5,
        reductions: Annotated[int, Field(ge=0, le=2)] = 2,
        entanglement: Mode = "gate",
    ) -> None:
        super().__init__()
        pooled = POOLED[len(POOLED) - reductions :]
        sides = [side // 2 ** len(pooled) - 2 for side in input_shape[1:]]
        if min(sides) < 1:
            pixels = "x".join(map(str, input_shape[1:]))
            raise UserError(
                "space.reductions", f"images of {pixels} are too small for {reductions} max-pools", code="out_of_range"
            )
        self.input_shape = input_shape
        self.num_classes = num_classes
        layers: list[ConvLayer] = []
        channels = as_dim(input_shape[0])
        for i, choices in enumerate(CHANNELS):
            widths = [max(1, round(width * option)) for option in choices]
            if len(set(widths)) < len(widths):
                raise UserError(
                    "space.width",
                    f"{width:g} is too small: the channels {list(choices)} become {widths}",
                    code="out_of_range",
                )
            outputs = Dim([ElasticChoice(f"channels_{i + 1}", widths)])
            kernel = kernel_dim(ElasticChoice(f"kernel_{i + 1}", kernels))
            conv = ElasticConv2d(channels, outputs, kernel, bias=True, mode=entanglement)
            after = [nn.MaxPool2d(2)] if i in pooled else []
            layers.append(ConvLayer(conv, outputs, *after, *([nn.Dropout2d(dropout)] if i == 2 else [])))
            channels = outputs
        last, *hidden = (max(1, round(width * size)) for size in (FIXED_CHANNELS, *HIDDEN))
        fixed = ElasticConv2d(channels, last, 7, inset=1, bias=True, mode=entanglement)
        self.layers = nn.ModuleList([*layers, ConvLayer(fixed, as_dim(last), nn.Dropout2d(dropout))])
        head: list[nn.Module] = [nn.Flatten()]
        features = last * sides[0] * sides[1]
        for size in hidden:
            head += [nn.Linear(features, size), nn.ReLU()]
            features = size
        self.head = nn.Sequential(*head, nn.Linear(features, num_classes))

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        for layer in self.layers:
            x = layer(x, gates)
        return self.head(x)


class ConvLayer(nn.Module):
    """A convolution, ReLU, its gate, and further layers.

    Args:
        conv: the convolution.
        outputs: its output channels.
        *after: layers that treat each channel alone.
    """

    def __init__(self, conv: ElasticConv2d, outputs: Dim, *after: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.act = nn.ReLU()
        self.gate = ElasticGate(outputs, mode=conv.mode, axis=1)
        self.after = nn.Sequential(*after)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        """`(batch, channels, height, width)` to the same or half the height and width."""
        return self.after(self.gate(self.act(self.conv(x, gates)), gates))
