"""What is exported to time a block as it stands in a network: the block between neighbours, and what to take off.

Alone, a convolution pays for bringing its input into the runtime's layout of channels and its output back, which in a
network only the first and the last one do, and there its norm, activation and addition are fused into it. So a block B
from shapes s to t is timed between two cheap neighbours p, a 1x1 convolution or a linear layer, from which it takes its
input warm and in the layout it has in a network:

    s = t:    ( T(p B B B B p) - T(p B p) ) / 3           its neighbours are blocks of its own kind
    else:     T(p_s B p_t) - ( T(p_s p_s) + T(p_t p_t) ) / 2

In the second form what comes before p_s and behind p_t, layout conversions and the call itself, cancels: each of the
two pairs pays for one end of its shape and for the other. A block that reads the image has no neighbour before it,
one that makes the logits none behind, and the neighbour alone is taken off.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn

from espalier.nas.cost.blocks import Block, Shape

REPEATS = 4
"""Blocks in a row, where they keep the shape: four are timed three times as well as one, against the same noise."""
Difference = list[tuple[float, "Context"]]
"""Networks and what each counts in the time of a block."""


class Context(nn.Module):
    """Some parts in a row, as a network of images: whatever shape they read comes in as `(channels, height, width)`.

    Attributes:
        input_shape: of an image.
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


class Added(nn.Module):
    """A module and its input, so that the input is needed: `y = x + o(x)`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return x + self.module(x)


def contexts(block: Block) -> Difference:
    """The networks whose times make the block's time, see above."""
    module, given, made = block.module, block.input_shape, block.output_shape
    if block.is_first and block.is_last:
        return [(1.0, Context(given, [renewed(module)]))]
    if block.is_first:
        return [(1.0, Context(given, [renewed(module), neighbour(made)])), (-1.0, Context(made, [neighbour(made)]))]
    if block.is_last:
        return [(1.0, Context(given, [neighbour(given), renewed(module)])), (-1.0, Context(given, [neighbour(given)]))]
    if block.ignores_input:
        return [(1.0, _between(given, [Added(renewed(module))], made)), (-1.0, _between(given, [], given))]
    if given == made:
        share = 1 / (REPEATS - 1)
        rows = [[renewed(module) for _ in range(count)] for count in (REPEATS, 1)]
        return [(share, _between(given, rows[0], made)), (-share, _between(given, rows[1], made))]
    ends = [(-0.5, _between(shape, [], shape)) for shape in (given, made)]
    return [(1.0, _between(given, [renewed(module)], made)), *ends]


def neighbour(shape: Shape) -> nn.Module:
    """A cheap layer of a shape: a 1x1 convolution of `(channels, height, width)`, else a linear layer."""
    return nn.Conv2d(shape[0], shape[0], 1) if len(shape) == 3 else nn.Linear(shape[-1], shape[-1])


def renewed(module: nn.Module) -> nn.Module:
    """A copy with weights of its own: exporters let layers of equal weights share them."""
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
