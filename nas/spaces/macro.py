"""NAS-Bench-Macro: eight layers, each an identity or an inverted bottleneck of one of two sizes; 6,561 networks.

Su et al., "Prioritized Architecture Sampling with Monto-Carlo Tree Search", CVPR 2021, section 4.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from espalier.nas.architecture import Architecture
from espalier.nas.choices import LayerChoice
from espalier.nas.elastic.layer import Mode
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.macro_entangled import EXPANSIONS, EntangledLayer
from espalier.nas.spaces.mobilenet import conv_bn, divisible, keep_last, mbconv

OPTIONS = ("identity", "mb3_k3", "mb6_k5")
"""In the order of the benchmark's digits: identity, expansion 3 and kernel 3, expansion 6 and kernel 5."""
STRIDES = (2, 2, 2)
"""Strides of the first layer of each stage."""
WIDTHS = (32, 64, 128, 256, 1280)

Cells = Annotated[tuple[PositiveInt, ...], Field(min_length=3, max_length=3)]
Widths = Annotated[tuple[PositiveInt, ...], Field(min_length=5, max_length=5)]


class Macro(SearchSpace):
    """Stem, three stages of searched layers `layer_1`, `layer_2`, ..., 1x1 convolution, head.

    The first layer of a stage changes the shape; its `identity` is a 1x1 convolution of the same stride with a batch
    norm. With the defaults, images of 32 x 32 pixels and ten classes, every network has exactly the parameters of the
    benchmark, and its MACs plus ten for the bias of the classifier, which the benchmark does not count.

    Args:
        input_shape: `(channels, height, width)` of an image.
        num_classes: number of outputs.
        width: factor of all channels, including those of the last convolution, rounded to multiples of 8.
        widths: channels of the stem, the three stages and the last convolution.
        cells: layers in each stage.
        reductions: number of strides of 2, up to three; the earliest are left out.
        entanglement: null gives every option of a layer its own weights. Else the smaller bottleneck is a part of the
            larger one, the options are expansions (0 for `identity`), and this is what a mixture of them does, see
            `espalier.nas.elastic.layer.Mode`. The notation is that of the benchmark in both cases.

    Raises:
        UserError: more than three reductions.
        ValueError: not three stages.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        num_classes: int = 10,
        *,
        width: PositiveFloat = 1.0,
        widths: Widths = WIDTHS,
        cells: Cells = (2, 3, 3),
        reductions: Annotated[int, Field(ge=0, le=3)] = 3,
        entanglement: Mode | None = None,
    ) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.num_classes = num_classes
        stem, *stages, last = (divisible(width * channels) for channels in widths)
        self.stem = nn.Sequential(*conv_bn(input_shape[0], stem, 3), nn.ReLU6())
        self._options: tuple[str, ...] | tuple[int, ...] = OPTIONS if entanglement is None else EXPANSIONS
        self.layers = nn.ModuleList()
        self._stages: list[list[str]] = []  # names of the layers by stage
        self._skippable: set[str] = set()  # layers whose identity changes nothing
        channels = stem
        for stage, count, first_stride in zip(stages, cells, keep_last(STRIDES, reductions), strict=True):
            names = [f"layer_{len(self.layers) + i + 1}" for i in range(count)]
            self._stages.append(names)
            for i, name in enumerate(names):
                stride = first_stride if i == 0 else 1
                if stride == 1 and channels == stage:
                    self._skippable.add(name)
                self.layers.append(
                    layer(name, channels, stage, stride=stride)
                    if entanglement is None
                    else EntangledLayer(name, channels, stage, stride=stride, mode=entanglement)
                )
                channels = stage
        self.last = nn.Sequential(*conv_bn(channels, last, 1), nn.ReLU6())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, num_classes))

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = layer(x, gates)
        return self.head(self.last(x))

    def parse(self, text: str, *, where: str = "architecture") -> Architecture:
        """An architecture from one digit for each layer, as in the benchmark: `00120210`.

        Raises:
            UserError: another number of digits, or one that is not 0, 1 or 2.
        """
        names, digits = list(self.choices()), text.strip()
        if len(digits) != len(names) or not set(digits) <= set("012"):
            raise UserError(where, f"must be {len(names)} digits from 0 to {len(OPTIONS) - 1}, not {text!r}")
        return Architecture({name: self._options[int(digit)] for name, digit in zip(names, digits, strict=True)})

    def format(self, architecture: Architecture) -> str:
        """The benchmark's digits of an architecture."""
        return "".join(str(self._options.index(architecture[name])) for name in self.choices())

    def isomorphism_class(self, architecture: Architecture) -> str:
        """The digits of each stage without identities, whose position in a stage has no effect.

        With the defaults there are 9 * 21 * 21 = 3,969 classes, exactly the different rows of the benchmark.
        """
        digits = dict(zip(self.choices(), self.format(architecture), strict=True))
        kept = [
            [digits[name] for name in names if name not in self._skippable or digits[name] != "0"]
            for names in self._stages
        ]
        return "|".join(map("".join, kept))


class Residual(nn.Module):
    """An operation plus its input: `y = x + o(x)`."""

    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        return x + self.operation(x)


def layer(name: str, in_channels: int, out_channels: int, *, stride: int) -> LayerChoice:
    """The three options of a layer; inverted bottlenecks add their input if the shape stays the same."""
    keeps = stride == 1 and in_channels == out_channels
    small = mbconv(in_channels, out_channels, 3, expansion=3, stride=stride)
    large = mbconv(in_channels, out_channels, 5, expansion=6, stride=stride)
    return LayerChoice(
        name,
        {
            "identity": nn.Identity()
            if keeps
            else nn.Sequential(*conv_bn(in_channels, out_channels, 1, stride=stride)),
            "mb3_k3": Residual(small) if keeps else small,
            "mb6_k5": Residual(large) if keeps else large,
        },
    )
