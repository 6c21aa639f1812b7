"""NASWOT: do the ReLUs tell the images apart?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from predictors.zero_cost.score import Score, ScoreError


class NASWOT(Score):
    """log |det K|, K = Σ_relu C Cᵀ + (1-C)(1-C)ᵀ, C the binary codes 1[z > 0] of the images at a ReLU's input z.

    K_ij counts the units where images i and j are on the same side; two images with equal codes make K singular and
    the score -inf. Mellor et al., "Neural Architecture Search without Training", ICML 2021.

    Every execution of a ReLU counts, as a module or a function, in place or not, and of its kin with a kink at 0:
    ReLU6, leaky ReLU, PReLU. Batch norm is in training mode on the whole batch.
    """

    name = "naswot"
    needs = frozenset({"images"})
    batch_norm = "batch"

    def compute(self, model: nn.Module, x: Tensor, y: Tensor) -> float:
        with torch.no_grad(), _Codes(len(x)) as codes:
            model(x)
        if codes.kernel is None:
            raise ScoreError("network", "naswot reads the ReLUs, and the network has none")
        return log_determinant(codes.kernel)


def log_determinant(kernel: Tensor) -> float:
    """log |det K| of a kernel of codes `(n, n)`."""
    equal = kernel == kernel.diagonal()
    if int(equal.sum()) > len(kernel):  # two equal codes; rounding could hide that the determinant is 0
        return float("-inf")
    return float(torch.linalg.slogdet(kernel).logabsdet)


def code_kernel(z: Tensor) -> Tensor:
    """C Cᵀ + (1-C)(1-C)ᵀ `(n, n)`, float64, of pre-activations `z` `(n, ...)`: the units where two rows agree."""
    c = (z.flatten(1) > 0).float()  # the sums of 0 and 1 are exact in float32 up to 16 million units
    on = c.sum(1).double()
    return 2 * (c @ c.T).double() + c.shape[1] - on[:, None] - on[None, :]


class _Codes(TorchDispatchMode):
    """Adds up the kernels of all ReLUs executed inside the block, however they are called."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.kernel: Tensor | None = None
        self._images = images

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if _is_relu(func, args):
            self._add(args[0])  # before the call, which may overwrite it
        return func(*args, **(kwargs or {}))

    def _add(self, z: Tensor) -> None:
        if len(z) != self._images:
            raise ScoreError(
                "network", f"naswot needs the images first; a ReLU of {self._images} sees {tuple(z.shape)}"
            )
        kernel = code_kernel(z)
        self.kernel = kernel if self.kernel is None else self.kernel + kernel


_aten = torch.ops.aten
_RELUS: frozenset[Callable[..., Any]] = frozenset(
    {_aten.relu, _aten.relu_, _aten.leaky_relu, _aten.leaky_relu_, _aten._prelu_kernel}
)
_CLIPS: frozenset[Callable[..., Any]] = frozenset({_aten.hardtanh, _aten.hardtanh_})


def _is_relu(func: Any, args: tuple[Any, ...]) -> bool:
    packet = func.overloadpacket
    return packet in _RELUS or (packet in _CLIPS and len(args) > 1 and args[1] == 0)  # ReLU6 is a clip to [0, 6]
