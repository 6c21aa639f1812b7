"""The binary codes of ReLUs: on which side of its kink each unit is, for each image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from espalier.predictors.zero_cost.network import ScoreError


class ReluInputs(TorchDispatchMode):
    """Sees the input of every ReLU executed inside the block, as a module or a function, in place or not.

    ReLU's kin with a kink at 0 counts: ReLU6, leaky ReLU, PReLU.

    Args:
        images: n, the first dimension of every input.
    """

    def __init__(self, images: int) -> None:
        super().__init__()
        self._images = images

    @abstractmethod
    def see(self, z: Tensor) -> None:
        """The input z `(n, ...)` of one execution, before it."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if _is_relu(func, args):
            if len(args[0]) != self._images:
                shape = tuple(args[0].shape)
                raise ScoreError("network", f"codes need the images first; a ReLU of {self._images} sees {shape}")
            self.see(args[0])  # before the call, which may overwrite it
        return func(*args, **(kwargs or {}))


class CodeKernel(ReluInputs):
    """Adds up the `code_kernel`s of all ReLUs executed inside the block; `kernel` is None where there is none."""

    def __init__(self, images: int) -> None:
        super().__init__(images)
        self.kernel: Tensor | None = None

    def see(self, z: Tensor) -> None:
        kernel = code_kernel(z) if bool(z.isfinite().all()) else z.new_full((len(z), len(z)), torch.nan).double()
        self.kernel = kernel if self.kernel is None else self.kernel + kernel


def code_kernel(z: Tensor) -> Tensor:
    """C Cᵀ + (1-C)(1-C)ᵀ `(n, n)`, float64, of pre-activations `z` `(n, ...)`: the units where two rows agree."""
    c = (z.flatten(1) > 0).float()  # the sums of 0 and 1 are exact in float32 up to 16 million units
    on = c.sum(1).double()
    return 2 * (c @ c.T).double() + c.shape[1] - on[:, None] - on[None, :]


_aten = torch.ops.aten
_RELUS: frozenset[Callable[..., Any]] = frozenset(
    {_aten.relu, _aten.relu_, _aten.leaky_relu, _aten.leaky_relu_, _aten._prelu_kernel}
)
_CLIPS: frozenset[Callable[..., Any]] = frozenset({_aten.hardtanh, _aten.hardtanh_})


def _is_relu(func: Any, args: tuple[Any, ...]) -> bool:
    packet = func.overloadpacket
    return packet in _RELUS or (packet in _CLIPS and len(args) > 1 and args[1] == 0)  # ReLU6 is a clip to [0, 6]
