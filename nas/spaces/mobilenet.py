"""The MobileNet space of ProxylessNAS: kernel sizes and expansions of 21 inverted bottlenecks.

Cai, Zhu & Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR 2019.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from espalier.nas.choices import LayerChoice
from espalier.nas.elastic.conv import ElasticConv2d
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates
from espalier.nas.space import SearchSpace

OPERATIONS = {f"k{kernel}e{expansion}": (kernel, expansion) for kernel in (3, 5, 7) for expansion in (3, 6)}
"""Kernel size of the depthwise convolution and expansion of a block, by name."""
STRIDES = (2, 2, 2, 2, 1, 2, 1)
"""Strides of the stem and of the first block of each stage."""
WIDTHS = (32, 16, 24, 40, 80, 96, 192, 320, 1280)

Cells = Annotated[tuple[PositiveInt, ...], Field(min_length=6, max_length=6)]
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=9, max_length=9)]


class MobileNet(SearchSpace):
    """Stem, one fixed block, six stages of searched blocks `block_1`, `block_2`, ..., 1x1 convolution, head.

    The options of a block are inverted bottlenecks with kernels of 3, 5 or 7 and expansions of 3 or 6. Blocks that keep
    the shape add their input, and have the further option `zero`, which skips the block. With the defaults there are
    6^6 7^15 architectures. Images can have any size; with 5 `reductions`, height and width are divided by 32.

    Args:
        input_shape: `(channels, height, width)` of an image.
        num_classes: number of outputs.
        width: factor of all channels, rounded to multiples of 8; factors below 1 do not apply to the last convolution.
        widths: channels of the stem, the fixed block, the six stages and the last convolution.
        cells: blocks in each of the six stages.
        reductions: number of strides of 2, up to five; the earliest are left out (5 for images of 224 pixels, 3 for
            32).

    Raises:
        UserError: more than five reductions.
        ValueError: not six stages.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 224, 224),
        num_classes: int = 1000,
        *,
        width: PositiveFloat = 1.0,
        widths: Widths = WIDTHS,
        cells: Cells = (4, 4, 4, 4, 4, 1),
        reductions: Annotated[int, Field(ge=0, le=5)] = 5,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        stem, first, *stages = (divisible(width * channels) for channels in widths[:-1])
        last = divisible(max(width, 1.0) * widths[-1])
        stem_stride, *strides = keep_last(STRIDES, reductions)
        self.stem = nn.Sequential(*conv_bn(input_shape[0], stem, 3, stride=stem_stride), nn.ReLU6())
        self.first = mbconv(stem, first, 3, expansion=1, stride=1)
        self.blocks = nn.ModuleList()
        channels = first
        for stage, count, stride in zip(stages, cells, strides, strict=True):
            for i in range(count):
                name = f"block_{len(self.blocks) + 1}"
                self.blocks.append(Block(name, channels, stage, stride=stride if i == 0 else 1))
                channels = stage
        self.last = nn.Sequential(*conv_bn(channels, last, 1), nn.ReLU6())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, num_classes))
        he_fan_out(self)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        x = self.first(self.stem(x))
        for block in self.blocks:
            x = block(x, gates)
        return self.head(self.last(x))

    def initialise(self, network: nn.Module) -> None:
        """Initialise convolutions from N(0, 2 / (out_channels kernel^2)), all else as torch does."""
        super().initialise(network)
        he_fan_out(network)


class Block(nn.Module):
    """A choice of inverted bottlenecks, plus the input if the shape stays the same: `y = x + o(x)`.

    Args:
        name: of the choice.
        in_channels: of the input.
        out_channels: of the output.
        stride: of the block.

    Attributes:
        in_channels: of the input.
        out_channels: of the output.
        stride: of the block.
        shortcut: whether the input is added.
    """

    def __init__(self, name: str, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.shortcut = stride == 1 and in_channels == out_channels
        candidates: dict[str, nn.Module | None] = {
            option: mbconv(in_channels, out_channels, kernel, expansion=expansion, stride=stride)
            for option, (kernel, expansion) in OPERATIONS.items()
        }
        if self.shortcut:
            candidates["zero"] = None
        self.choice = LayerChoice(name, candidates)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        y = self.choice(x, gates)
        if not self.shortcut:
            return y
        return x if y is None else x + y


def mbconv(in_channels: int, out_channels: int, kernel: int, *, expansion: int, stride: int) -> nn.Sequential:
    """An inverted bottleneck: 1x1 convolution to more channels, depthwise convolution, 1x1 projection.

    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 1.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: size of the depthwise convolution.
        expansion: factor of the channels in between; 1 leaves out the first convolution.
        stride: of the depthwise convolution.
    """
    hidden = in_channels * expansion
    widen = [] if expansion == 1 else [*conv_bn(in_channels, hidden, 1), nn.ReLU6()]
    depthwise = [*conv_bn(hidden, hidden, kernel, stride=stride, groups=hidden), nn.ReLU6()]
    return nn.Sequential(*widen, *depthwise, *conv_bn(hidden, out_channels, 1))


def conv_bn(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1, eps: float = 1e-3
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Convolution without bias, batch norm."""
    return (
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=eps, momentum=0.1),
    )


def divisible(channels: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth below `channels`, and at least 8."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def keep_last(strides: tuple[int, ...], reductions: int) -> tuple[int, ...]:
    """The strides with only the last `reductions` of those above 1; the others become 1.

    Args:
        strides: all strides.
        reductions: how many to keep.

    Raises:
        UserError: there are fewer.
    """
    places = [i for i, stride in enumerate(strides) if stride > 1]
    if not 0 <= reductions <= len(places):
        raise UserError(
            "space.reductions", f"must be between 0 and {len(places)}, not {reductions}", code="out_of_range"
        )
    dropped = places[: len(places) - reductions]
    return tuple(1 if i in dropped else stride for i, stride in enumerate(strides))


def he_fan_out(network: nn.Module) -> None:
    """Initialise all convolutions from N(0, 2 / (out_channels kernel^2)), elastic ones at their largest size."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | ElasticConv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
