"""The feature map F(x): what a convolutional network knows just before it pools over all positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from espalier.predictors.zero_cost.network import ScoreError, logits


class LastMap(TorchDispatchMode):
    """Keeps the last map `(n, channels, h, w)`, h·w > 1, that any operation executed inside the block puts out.

    Operations, not modules: so a function, a residual sum or an operation in place is seen like a layer. Channels may
    also be last. Sums of tokens `(n, positions, channels)` after a map show that it was the inside of a transformer.

    Args:
        images: n.

    Attributes:
        map: None where there is none.
    """

    def __init__(self, images: int) -> None:
        super().__init__()
        self._images = images
        self.map: Tensor | None = None

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        # of several outputs the first is the map; behind it come statistics, indices, masks
        first = output[0] if isinstance(output, tuple | list) and output else output
        if isinstance(first, Tensor) and first.ndim > 2 and len(first) == self._images:
            if _is_map(first.shape):
                self.map = first
            elif first.ndim == 3 and func.overloadpacket in _SUMS:
                self.map = None
        return output


_SUMS = frozenset({torch.ops.aten.add, torch.ops.aten.add_})


def _is_map(shape: torch.Size) -> bool:
    """Has it more than one position, whether its channels come second or last?"""
    return len(shape) == 4 and shape[2] * shape[3] > 1 and shape[1] * shape[2] > 1


def feature_map(model: nn.Module, x: Tensor) -> Tensor:
    """F(x) `(n, channels, h, w)` of images `(n, ...)`: the last map with more than one position before the logits.

    Where a network shrinks its maps to a single position by strides alone, F is what it had before the last of them.

    Raises:
        ScoreError: there is no such map, or the network returns no logits.
    """
    with LastMap(len(x)) as last:
        logits(model(x), len(x))
    if last.map is None:
        raise ScoreError("network", "it has no feature map (images, channels, height, width) before its logits")
    return last.map
