"""A layer of NAS-Bench-Macro with entangled weights: the smaller bottleneck is a part of the larger one."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from espalier.nas.choices import Choice, ElasticChoice, sum_present
from espalier.nas.elastic.conv import kernel_dim
from espalier.nas.elastic.dims import Dim
from espalier.nas.elastic.layer import Mode
from espalier.nas.gates import Gates, Mixture
from espalier.nas.spaces.mobilenet import conv_bn
from espalier.nas.spaces.mobilenetv3 import InvertedBottleneck

EXPANSIONS = (0, 3, 6)
"""Expansions of the options; 0 for the identity."""
KERNELS = {3: 3, 6: 5}
"""Kernel sizes by expansion."""


class EntangledLayer(nn.Module):
    """One choice between identity and an inverted bottleneck F with expansion 3 and kernel 3, or 6 and 5.

    In a mixture with weights theta and strength v = theta_3 + theta_6,

        y = x + v F(x)  if the shape stays,    y = theta_0 I(x) + v F(x)  if it changes

    F is mixed like any elastic layer; I is a 1x1 convolution with a norm and weights of its own. In the coverage of F's
    channels and kernel, theta_0 counts like theta_3, for v alone accounts for `identity`.

    Args:
        name: of the choice.
        in_channels: of the input.
        out_channels: of the output.
        stride: of the layer.
        mode: what a mixture of sizes does.
    """

    def __init__(self, name: str, in_channels: int, out_channels: int, *, stride: int, mode: Mode) -> None:
        super().__init__()
        self.choice = ElasticChoice(name, EXPANSIONS)
        self.bottleneck = InvertedBottleneck(
            in_channels,
            out_channels,
            Dim([self.choice], lambda expansion: in_channels * (expansion or 3)),
            kernel_dim(self.choice, size=lambda expansion: KERNELS[expansion or 3]),
            stride=stride,
            act=nn.ReLU6,
            squeeze=None,
            eps=1e-3,
            mode=mode,
        )
        keeps = self.bottleneck.shortcut
        self.identity = nn.Identity() if keeps else nn.Sequential(*conv_bn(in_channels, out_channels, 1, stride=stride))

    def conditions(self) -> Mapping[str, tuple[Choice, frozenset[int]]]:
        """The options for which each part is run."""
        return {"identity": (self.choice, frozenset({0})), "bottleneck": (self.choice, frozenset({1, 2}))}

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        """`(batch, in_channels, height, width)` to `(batch, out_channels, height / stride, width / stride)`."""
        gate = self.choice.gate(gates)
        if not isinstance(gate, Mixture):
            return self.bottleneck(x, gates, None) if gate else self.identity(x)
        strength = sum_present([gate.weights[index] for index in gate.active if index])
        if self.bottleneck.shortcut:
            return x if strength is None else self.bottleneck(x, gates, strength)
        y = gate.weights[0] * self.identity(x) if 0 in gate.active else None
        mixed = y if strength is None else sum_present([y, strength * self.bottleneck(x, gates, None)])
        assert mixed is not None  # some option is active
        return mixed
