"""The speed-up of 2:4 sparsity on this machine's GPU: measured, or absent with the reason; never guessed.

Sparse tensor cores (NVIDIA Ampere and later) multiply by a matrix with two zeros in every four consecutive inputs in
half the steps. torch uses them for linear layers (`torch.sparse.to_sparse_semi_structured`), not for convolutions.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from espalier.nas.copying import copied
from espalier.nas.intervals import median_interval

MIN_CAPABILITY = (8, 0)
"""CUDA compute capability of the first GPUs with sparse tensor cores."""

DTYPE = torch.float16
"""Precision while timing: sparse tensor cores do not support float32."""

DEVICE = "cuda"
ROUNDS = 21
RUNS = 20
"""Consecutive forward passes in each of the four parts of a round."""
WARM_UP = 3
"""Untimed rounds before the timed ones; torch selects its kernels in the first."""

TOLERANCE = 2e-2
"""Largest difference of two outputs, as a share of the largest output; the order of additions differs."""


@dataclass(frozen=True)
class SemiStructured:
    """Times of a network with its 2:4 layers multiplied sparsely and densely; None where they could not be measured.

    Attributes:
        dense_ms: median time of one batch, multiplied densely.
        sparse_ms: median time of one batch, multiplied sparsely.
        ratio: median over rounds of sparse time / dense time; below 1 sparsity is faster.
        ci95: 95 % bootstrap interval of `ratio`, rounds resampled.
        reason: why there are no times; None if there are.
        gpu: its name.
        batch: images in a batch.
        rounds: timed rounds.
        sparse: names of the layers that were multiplied sparsely.
        left: for each other 2:4 layer, why it was not.
    """

    dense_ms: float | None = None
    sparse_ms: float | None = None
    ratio: float | None = None
    ci95: tuple[float, float] | None = None
    reason: str | None = None
    gpu: str | None = None
    batch: int = 0
    rounds: int = 0
    sparse: tuple[str, ...] = ()
    left: Mapping[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, by the names of the attributes."""
        return asdict(self)


def measure_2_4(model: nn.Module, input_shape: tuple[int, ...], batch: int) -> SemiStructured:
    """Time a network that is already pruned 2:4 with and without sparse tensor cores, in float16 and eval mode.

    A copy is timed. A round is dense, sparse, sparse, dense, each `RUNS` passes in a row.

    Args:
        model: the pruned network; left as it is.
        input_shape: of one image, without the batch.
        batch: images in a batch.
    """
    reason = missing_gpu()
    layers = layers_2_4(model)
    if reason is None and not layers:
        reason = "no linear layer has two zeros in every four consecutive inputs, and convolutions are not accelerated"
    if reason is not None:
        return SemiStructured(reason=reason, batch=batch)
    return _measure(model, layers, input_shape, batch, torch.device(DEVICE))


def missing_gpu() -> str | None:
    """Why this machine cannot multiply 2:4 sparsely; None if it can."""
    if not torch.cuda.is_available() or torch.version.cuda is None:
        return "needs an NVIDIA GPU, but there is none"
    capability = torch.cuda.get_device_capability()
    if capability < MIN_CAPABILITY:
        least = ".".join(map(str, MIN_CAPABILITY))
        name = torch.cuda.get_device_name()
        return f"{name} has compute capability {'.'.join(map(str, capability))}, sparse tensor cores need {least}"
    return None


def layers_2_4(model: nn.Module) -> list[str]:
    """Names of the linear layers with at least two zeros in every four consecutive inputs."""
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) and _is_2_4(layer.weight)]


def _is_2_4(weight: Tensor) -> bool:
    if weight.shape[1] % 4:
        return False
    return bool(((weight.detach() == 0).reshape(-1, 4).sum(dim=1) >= 2).all())


def _measure(
    model: nn.Module, layers: list[str], input_shape: tuple[int, ...], batch: int, device: torch.device
) -> SemiStructured:
    dense = copied(model).to(device, DTYPE).eval()
    sparse = copy.deepcopy(dense)
    left = _make_sparse(sparse, layers)
    facts: dict[str, Any] = {
        "gpu": _name(device),
        "batch": batch,
        "sparse": tuple(name for name in layers if name not in left),
        "left": left,
    }
    if not facts["sparse"]:
        return SemiStructured(reason=f"torch supports none of the layers ({next(iter(left.values()))})", **facts)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, *input_shape, generator=generator).to(device, DTYPE)
    with torch.inference_mode():
        want, got = dense(images).float(), sparse(images).float()
        error = float((got - want).abs().max() / want.abs().max())
        if not error <= TOLERANCE:  # also if it is NaN
            return SemiStructured(reason=f"outputs differ by {error:.2g} of the largest", **facts)
        dense_ms, sparse_ms = _interleaved(lambda: dense(images), lambda: sparse(images), device)
    ratios = sparse_ms / dense_ms
    return SemiStructured(
        dense_ms=float(np.median(dense_ms)),
        sparse_ms=float(np.median(sparse_ms)),
        ratio=float(np.median(ratios)),
        ci95=median_interval(ratios),
        rounds=len(ratios),
        **facts,
    )


def _make_sparse(model: nn.Module, layers: list[str]) -> dict[str, str]:
    """Make the layers' weights sparse, in place; returns torch's reason for each layer that it does not support."""
    left: dict[str, str] = {}
    for name in layers:
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch warns at every use that this interface is a prototype
                layer.weight = nn.Parameter(torch.sparse.to_sparse_semi_structured(layer.weight.detach()))
        except RuntimeError as error:  # a shape that the kernels do not support
            left[name] = (str(error).splitlines() or [type(error).__name__])[0]
    return left


def _interleaved(
    dense: Callable[[], object], sparse: Callable[[], object], device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Milliseconds for one pass of each in each round, both of shape `(ROUNDS,)`."""
    times = np.empty((WARM_UP + ROUNDS, 4))
    for index in range(WARM_UP + ROUNDS):
        times[index] = [_stretch_ms(run, device) for run in (dense, sparse, sparse, dense)]
    a, b, c, d = times[WARM_UP:].T
    return (a + d) / 2, (b + c) / 2


def _stretch_ms(run: Callable[[], object], device: torch.device) -> float:
    """Milliseconds for one of `RUNS` consecutive passes, on the GPU's own clock."""
    stream = torch.cuda.current_stream(device)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record(stream)
    for _ in range(RUNS):
        run()
    end.record(stream)
    end.synchronize()
    return float(start.elapsed_time(end)) / RUNS


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)
