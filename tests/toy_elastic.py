"""A small elastic space for tests: width, kernel, expansion, depth and heads, in 8x8 images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from espalier.nas.choices import ElasticChoice
from espalier.nas.elastic.attention import ElasticAttention
from espalier.nas.elastic.conv import ElasticConv2d, kernel_dim
from espalier.nas.elastic.depth import ElasticDepth
from espalier.nas.elastic.dims import Dim
from espalier.nas.elastic.layer import ElasticGate, Mode
from espalier.nas.elastic.linear import ElasticLinear
from espalier.nas.elastic.norm import ElasticBatchNorm2d, ElasticLayerNorm
from espalier.nas.gates import Gates
from espalier.nas.space import SearchSpace


class ToyElastic(SearchSpace):
    """Stem of elastic width, one or two inverted bottlenecks, attention over the pixels, head: 144 architectures."""

    def __init__(self, entanglement: Mode = "gate", image: int = 8) -> None:
        super().__init__()
        self.input_shape = (1, image, image)
        self.num_classes = 10
        width = Dim([ElasticChoice("width", (4, 6, 8))])
        self.stem = ElasticConv2d(1, width, 3, stride=2, mode=entanglement)
        self.norm = ElasticBatchNorm2d(width, mode=entanglement)
        self.gate = ElasticGate(width, mode=entanglement, axis=1)
        blocks = [Bottleneck(width, index, entanglement) for index in range(2)]
        self.stage = ElasticDepth(ElasticChoice("depth", (1, 2)), blocks, mode=entanglement)
        self.before = ElasticLayerNorm(width)
        heads = Dim([ElasticChoice("heads", (1, 2, 3))])
        self.attention = ElasticAttention(width, heads, head_size=4, mode=entanglement)
        self.after = ElasticGate(width, mode=entanglement, axis=-1)
        self.head = ElasticLinear(width, 10, mode=entanglement)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        x = self.gate(F.relu(self.norm(self.stem(x, gates), gates)), gates)
        x = self.stage(x, gates).flatten(2).transpose(1, 2)
        x = x + self.after(self.attention(self.before(x, gates), gates), gates)
        return self.head(x.mean(1), gates)


class Bottleneck(nn.Module):
    """Depthwise convolution of an elastic kernel between two 1x1 convolutions, the first of an elastic expansion."""

    def __init__(self, width: Dim, index: int, mode: Mode) -> None:
        super().__init__()
        expansion = ElasticChoice(f"expansion_{index}", (1, 2))
        hidden = Dim([*width.choices, expansion], lambda channels, factor: channels * factor)  # type: ignore[list-item]
        kernel = kernel_dim(ElasticChoice("kernel", (1, 3)) if index == 0 else ElasticChoice("kernel_1", (3, 5)))
        self.widen = ElasticConv2d(width, hidden, 1, mode=mode)
        self.depthwise = ElasticConv2d(hidden, hidden, kernel, depthwise=True, mode=mode)
        self.norm = ElasticBatchNorm2d(hidden, mode=mode)
        self.gate = ElasticGate(hidden, mode=mode, axis=1)
        self.narrow = ElasticConv2d(hidden, width, 1, bias=True, mode=mode)
        self.out = ElasticGate(width, mode=mode, axis=1)

    def forward(self, x: Tensor, gates: Gates, strength: Tensor | None) -> Tensor:
        y = F.relu(self.norm(self.depthwise(self.widen(x, gates), gates), gates))
        y = self.out(self.narrow(self.gate(y, gates), gates), gates)
        return x + (y if strength is None else strength * y)
