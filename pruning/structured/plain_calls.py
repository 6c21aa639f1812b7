"""Tensor operations in the form that Torch-Pruning's graph can read, while a network is traced."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

SPLITS = {"chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split"}
"""Operations `(tensor, sizes or number, dim)` that cut a tensor along one dimension."""
DIM_AT = {"unbind": 1, "narrow": 1, "select": 1, "cat": 1, "concat": 1, "concatenate": 1, "stack": 1, "squeeze": 1}
"""By other operation, the position of its argument `dim`."""


class PlainCalls(TorchFunctionMode):
    """Replaces calls whose autograd nodes cannot be read by equal ones whose nodes can.

    - Splits become slices, each of which knows where it starts. A split's own node does not tell its reader which part
      it reads.
    - A gated linear unit becomes a product of its two halves. Its own node does not tell that channel `i` is multiplied
      by channel `i + n`.
    - Dimensions count from the front: autograd saves a dimension of -1 as an unsigned number, 2^64 - 1.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call `func`, or what replaces it."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if func is functional.glu:
            return _glu(*args, **kwargs)
        if name in SPLITS:
            return _sliced(func(*args, **kwargs), *args, **kwargs)
        if name in DIM_AT:
            args, kwargs = _counted_from_front(args, kwargs, DIM_AT[name], stacked=func is torch.stack)
        return func(*args, **kwargs)


def _glu(input: Tensor, dim: int = -1) -> Tensor:
    half = input.shape[dim] // 2
    return input.narrow(dim % input.ndim, 0, half) * torch.sigmoid(input.narrow(dim % input.ndim, half, half))


def _sliced(parts: Sequence[Tensor], input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
    """The parts of `input` that an operation cut it into, as slices of it.

    Equal parts stay equal only if all of them lose the same channels: zero times the others is added to each, which
    tells the graph so.
    """
    dim = kwargs.get("dim", args[1] if len(args) > 1 else 0) % input.ndim
    sizes = [part.shape[dim] for part in parts]
    starts = itertools.accumulate(sizes, initial=0)
    slices = [input.narrow(dim, start, size) for start, size in zip(starts, sizes, strict=False)]
    if len(set(sizes)) != 1 or len(sizes) == 1:
        return tuple(slices)
    together = 0 * sum(slices[1:], slices[0])
    return tuple(part + together for part in slices)


def _counted_from_front(
    args: tuple[Any, ...], kwargs: dict[str, Any], position: int, *, stacked: bool
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    first = args[0] if args else None
    tensor = first[0] if isinstance(first, list | tuple) and first else first
    if not isinstance(tensor, Tensor):
        return args, kwargs
    ndim = tensor.ndim + stacked
    if type(dim := kwargs.get("dim")) is int:
        return args, {**kwargs, "dim": dim % ndim}
    if len(args) > position and type(dim := args[position]) is int:
        return (*args[:position], dim % ndim, *args[position + 1 :]), kwargs
    return args, kwargs
