"""The networks that are timed to find the time of a block inside a network: the block between two neighbours.

A single convolution includes the conversion of its input to the runtime's channel layout and of its output back, which
only the first and the last layer of a network need; and in a network its norm, activation and addition are fused. So a
block B from shapes s to t is timed between two cheap neighbours p, a 1x1 convolution or a linear layer, whose output is
in the caches and in the layout that it would have in a network:

    s = t:    ( T(p B B B B p) - T(p B p) ) / 3           the neighbours are blocks of the same kind
    else:     T(p_s B p_t) - ( T(p_s p_s) + T(p_t p_t) ) / 2

In the second form everything before p_s and after p_t (layout conversions and the call itself) cancels, since each of
the two pairs includes both ends for its shape. A block that reads the image has no neighbour before it, one that
produces the logits has none after it, and only the time of the other neighbour is subtracted.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from espalier.nas.cost.blocks import Block, Shape

REPEATS = 4
"""Blocks in a row, if they keep the shape: the time of three is measured against the same noise as that of one."""
Difference = list[tuple[float, "Context"]]
"""Networks and their weights in the time of a block."""


class Context(nn.Module):
    """Parts in a row as a network for images, which are reshaped to the parts' input.

    Args:
        shape: of the input of the first part.
        parts: the parts.

    Attributes:
        input_shape: of an image, `(channels, height, width)`.
    """

    def __init__(self, shape: Shape, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self._dims = len(shape)
        self.parts = nn.Sequential(*parts)
        self.input_shape = {1: (*shape, 1, 1), 2: (1, *shape), 3: shape}[len(shape)]

    def forward(self, x: Tensor) -> Tensor:
        if self._dims == 2:
            x = x.flatten(1, 2)
        elif self._dims == 1:
            x = x.flatten(1)
        return self.parts(x)


class Residual(nn.Module):
    """A module with a shortcut, `y = x + o(x)`, so that its input is needed."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return x + self.module(x)


def contexts(block: Block) -> Difference:
    """The networks whose weighted times are the block's time, see above."""
    module, given, made = block.module, block.input_shape, block.output_shape
    if block.is_first and block.is_last:
        return [(1.0, Context(given, [reinitialised(module)]))]
    if block.is_first:
        return [
            (1.0, Context(given, [reinitialised(module), neighbour(made)])),
            (-1.0, Context(made, [neighbour(made)])),
        ]
    if block.is_last:
        return [
            (1.0, Context(given, [neighbour(given), reinitialised(module)])),
            (-1.0, Context(given, [neighbour(given)])),
        ]
    if block.ignores_input:
        return [(1.0, _between(given, [Residual(reinitialised(module))], made)), (-1.0, _between(given, [], given))]
    if given == made:
        share = 1 / (REPEATS - 1)
        rows = [[reinitialised(module) for _ in range(count)] for count in (REPEATS, 1)]
        return [(share, _between(given, rows[0], made)), (-share, _between(given, rows[1], made))]
    ends = [(-0.5, _between(shape, [], shape)) for shape in (given, made)]
    return [(1.0, _between(given, [reinitialised(module)], made)), *ends]


def neighbour(shape: Shape) -> nn.Module:
    """A cheap layer for a shape: a 1x1 convolution for `(channels, height, width)`, else a linear layer."""
    return nn.Conv2d(shape[0], shape[0], 1) if len(shape) == 3 else nn.Linear(shape[-1], shape[-1])


def reinitialised(module: nn.Module) -> nn.Module:
    """A copy with different weights: exporters would let layers of equal weights share them."""
    module = copy.deepcopy(module).eval()
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            nn.init.normal_(parameter, std=0.02)
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            reset()
    return module


def _between(given: Shape, parts: Sequence[nn.Module], made: Shape) -> Context:
    return Context(given, [neighbour(given), *parts, neighbour(made)])
