"""The MobileNetV3 space of Once-for-All: elastic depth of stages, elastic kernels and expansions of blocks.

Cai, Gan, Wang, Zhang & Han, "Once-for-All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020;
the layout is that of Howard et al., "Searching for MobileNetV3", ICCV 2019, table 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from espalier.nas.architecture import Architecture
from espalier.nas.choices import ElasticChoice
from espalier.nas.elastic.conv import ElasticConv2d, kernel_dim
from espalier.nas.elastic.depth import ElasticDepth
from espalier.nas.elastic.dims import Dim
from espalier.nas.elastic.layer import ElasticGate, Mode
from espalier.nas.elastic.linear import ElasticLinear
from espalier.nas.elastic.norm import ElasticBatchNorm2d
from espalier.nas.gates import Gates
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.mobilenet import conv_bn, divisible, he_fan_out, keep_last
from espalier.nas.spaces.options import Kernels, Sizes

WIDTHS = (16, 16, 24, 40, 80, 112, 160, 960, 1280)
"""Channels of the stem, the fixed block, the five stages and the last two layers."""
STRIDES = (2, 2, 2, 2, 1, 2)
"""Strides of the stem and of the first block of each stage."""
STAGES: tuple[tuple[type[nn.Module], bool], ...] = (
    (nn.ReLU, False),
    (nn.ReLU, True),
    (nn.Hardswish, False),
    (nn.Hardswish, True),
    (nn.Hardswish, True),
)
"""Activation of a stage's blocks, and whether they have squeeze-and-excitation."""
EPS = 1e-5

Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=9, max_length=9)]


class MobileNetV3(SearchSpace):
    """Stem, one fixed block, five stages of elastic inverted bottlenecks, two 1x1 convolutions, head.

    The choices are `depth_s` for each stage s, and `kernel_s_i` and `expansion_s_i` for its block i. The first block of
    a stage changes the shape and is always run; the others add their input. A smaller kernel is the centre of a larger
    one. The paper's learned kernel transformations are left out, since with them a small kernel would not be a part of
    a large one. With the defaults there are 2 10^19 architectures.

    Args:
        input_shape: `(channels, height, width)` of an image.
        num_classes: number of outputs.
        width: factor of all channels, rounded to multiples of 8.
        widths: channels of the stem, the fixed block, the five stages, the last convolution and the layer after the
            pool.
        depths: numbers of blocks of a stage to choose from.
        kernels: sizes of a block's depthwise convolution to choose from, odd numbers.
        expansions: expansion factors of a block to choose from.
        reductions: number of strides of 2, up to five; the earliest are left out (5 for images of 224 pixels, 3 for
            32).
        entanglement: what a mixture of widths and depths does, see `espalier.nas.elastic.layer.Mode`.

    Raises:
        UserError: more than five reductions.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 224, 224),
        num_classes: int = 1000,
        *,
        width: PositiveFloat = 1.0,
        widths: Widths = WIDTHS,
        depths: Sizes = (2, 3, 4),
        kernels: Kernels = (3, 5, 7),
        expansions: Sizes = (3, 4, 6),
        reductions: Annotated[int, Field(ge=0, le=5)] = 5,
        entanglement: Mode = "gate",
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        stem, first, *outputs, last, mixed = (divisible(width * channels) for channels in widths)
        stem_stride, *strides = keep_last(STRIDES, reductions)
        self.stem = nn.Sequential(*conv_bn(input_shape[0], stem, 3, stride=stem_stride, eps=EPS), nn.Hardswish())
        self.first = FixedBlock(stem, first)
        self.stages = nn.ModuleList()
        channels = first
        for s, (out, stride, (act, squeeze)) in enumerate(zip(outputs, strides, STAGES, strict=True), start=1):
            blocks = []
            for i in range(1, depths[-1] + 1):
                kernel = ElasticChoice(f"kernel_{s}_{i}", kernels)
                expansion = ElasticChoice(f"expansion_{s}_{i}", expansions)
                hidden = hidden_dim(channels, expansion)
                rings = kernel_dim(kernel)
                block = InvertedBottleneck(
                    channels,
                    out,
                    hidden,
                    rings,
                    stride=stride if i == 1 else 1,
                    act=act,
                    squeeze=squeeze_dim(channels, expansion) if squeeze else None,
                    mode=entanglement,
                )
                blocks.append(block)
                channels = out
            self.stages.append(ElasticDepth(ElasticChoice(f"depth_{s}", depths), blocks, mode=entanglement))
        self.last = nn.Sequential(*conv_bn(channels, last, 1, eps=EPS), nn.Hardswish())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.mix = nn.Sequential(nn.Conv2d(last, mixed, 1, bias=False), nn.Hardswish())
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(mixed, num_classes))
        he_fan_out(self)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        x = self.first(self.stem(x))
        for stage in self.stages:
            x = stage(x, gates)
        return self.head(self.mix(self.pool(self.last(x))))

    def inactive(self, architecture: Architecture) -> Collection[str]:
        """The choices of the blocks that the depths leave out."""
        return [
            f"{kind}_{s}_{i + 1}"
            for s, stage in enumerate(self.stages, start=1)
            for i in range(int(architecture[f"depth_{s}"]), len(stage.blocks))  # type: ignore[arg-type]
            for kind in ("kernel", "expansion")
        ]

    def initialise(self, network: nn.Module) -> None:
        """Initialise convolutions from N(0, 2 / (out_channels kernel^2)), all else as torch does."""
        super().initialise(network)
        he_fan_out(network)


class InvertedBottleneck(nn.Module):
    """An elastic inverted bottleneck, with optional squeeze-and-excitation, plus its input if the shape stays the same.

    Hidden channels are gated once, after the norm and activation of the depthwise convolution: up to there, each
    channel is treated alone.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: of the block.
        hidden: channels in between.
        rings: dim of the depthwise kernel, see `kernel_dim`.
        act: makes the activations.
        squeeze: features of the squeeze-and-excitation; None for none.
        eps: of the norms.
        mode: what a mixture of sizes does.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: Dim,
        rings: Dim,
        *,
        stride: int,
        act: Callable[[], nn.Module],
        squeeze: Dim | None,
        eps: float = EPS,
        mode: Mode,
    ) -> None:
        super().__init__()
        self.shortcut = stride == 1 and in_channels == out_channels
        self.widen = ElasticConv2d(in_channels, hidden, 1, mode=mode)
        self.widen_norm = ElasticBatchNorm2d(hidden, eps=eps, mode=mode)
        self.widen_act = act()
        self.depthwise = ElasticConv2d(hidden, hidden, rings, stride=stride, depthwise=True, mode=mode)
        self.depthwise_norm = ElasticBatchNorm2d(hidden, eps=eps, mode=mode)
        self.depthwise_act = act()
        self.gate = ElasticGate(hidden, mode=mode, axis=1)
        self.squeeze = None if squeeze is None else SqueezeExcite(hidden, squeeze, mode=mode)
        self.project = ElasticConv2d(hidden, out_channels, 1, mode=mode)
        self.project_norm = nn.BatchNorm2d(out_channels, eps=eps)

    def forward(self, x: Tensor, gates: Gates, strength: Tensor | None) -> Tensor:
        """The output of the block.

        Args:
            x: `(batch, in_channels, height, width)`.
            gates: of this forward pass.
            strength: scales what is added to the input; None for 1.
        """
        y = self.widen_act(self.widen_norm(self.widen(x, gates), gates))
        y = self.gate(self.depthwise_act(self.depthwise_norm(self.depthwise(y, gates), gates)), gates)
        if self.squeeze is not None:
            y = self.squeeze(y, gates)
        y = self.project_norm(self.project(y, gates))
        if not self.shortcut:
            return y  # the first block of a stage: every depth runs it, so there is no strength
        return x + y if strength is None else x + strength * y


class SqueezeExcite(nn.Module):
    """Scales each channel by a function of the means of all channels: `x h(W_2 relu(W_1 mean(x) + b_1) + b_2)`.

    Hu, Shen & Sun, "Squeeze-and-Excitation Networks", CVPR 2018, with a hard sigmoid h.

    Args:
        channels: of the input.
        squeezed: features in between.
        mode: what a mixture of sizes does.
    """

    def __init__(self, channels: Dim, squeezed: Dim, *, mode: Mode) -> None:
        super().__init__()
        self.reduce = ElasticLinear(channels, squeezed, mode=mode)
        self.act = nn.ReLU()
        self.gate = ElasticGate(squeezed, mode=mode, axis=-1)
        self.expand = ElasticLinear(squeezed, channels, mode=mode)
        self.scale = nn.Hardsigmoid()

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        """`(batch, channels, height, width)`, the same shape."""
        y = self.gate(self.act(self.reduce(x.mean((2, 3)), gates)), gates)
        return x * self.scale(self.expand(y, gates)).unflatten(1, (-1, 1, 1))


class FixedBlock(nn.Module):
    """A depthwise separable convolution, plus its input if the channels are equal; not searched."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.shortcut = in_channels == out_channels
        depthwise = [*conv_bn(in_channels, in_channels, 3, groups=in_channels, eps=EPS), nn.ReLU()]
        self.layers = nn.Sequential(*depthwise, *conv_bn(in_channels, out_channels, 1, eps=EPS))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.shortcut else y


def hidden_dim(channels: int, expansion: ElasticChoice) -> Dim:
    """The dim of a block's hidden channels."""
    return Dim([expansion], lambda factor: divisible(channels * factor))


def squeeze_dim(channels: int, expansion: ElasticChoice) -> Dim:
    """The dim of a block's squeeze-and-excitation: a quarter of the hidden channels."""
    return Dim([expansion], lambda factor: divisible(divisible(channels * factor) // 4))
