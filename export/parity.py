"""Check that an ONNX file computes what the torch network computes: structure first, then numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from espalier.export.errors import ExportError

RELATIVE_TOLERANCE = 1e-3
"""Allowed error, as a share of how much the outputs change with the input. Two float32 runtimes differ by about 1e-5
of it, a wrong attribute (padding, epsilon, a dropped bias) by more than 1e-2: a thousandth is far from both."""

ROUNDING_ULPS = 64
"""Error that float32 rounding alone explains, in units of the last place of the largest output. It matters only if
outputs hardly change with the input (a constant network, an untrained one with large biases)."""


@dataclass(frozen=True)
class Parity:
    """How close the ONNX file is to torch, over all images at batch 1 and 3.

    Attributes:
        max_abs_error: largest difference of two outputs.
        tolerance: the largest allowed difference.
        constant: the outputs do not depend on the input, in torch as in ONNX (a legal, degenerate network).
    """

    max_abs_error: float
    tolerance: float
    constant: bool


def check_parity(model: nn.Module, input_shape: tuple[int, int, int], path: Path) -> Parity:
    """Check the file at `path` against `model` (on the CPU, in eval mode) with ONNX Runtime on the CPU.

    The file must be valid ONNX with no external data, have one input `input` `(batch, C, H, W)` of float32 with a
    symbolic `batch`, and give torch's outputs at batch 1 and 3, within `RELATIVE_TOLERANCE` times the spread of
    torch's outputs over the images (root mean square over outputs of their standard deviation), but never less than
    `ROUNDING_ULPS`.

    Raises:
        ExportError: one of these conditions does not hold; the numbers are given.
    """
    check_structure(path, input_shape)
    images = _varied_images(input_shape)
    with torch.no_grad():
        expected = model(images).double().numpy()
        alone = model(images[:1]).double().numpy()
    if not (np.isfinite(expected).all() and np.isfinite(alone).all()):
        raise ExportError(str(path), "torch's own outputs are not finite, so nothing can be compared with them")
    got, got_alone = _run(path, [images.numpy(), images[:1].numpy()])
    if got.shape != expected.shape or got_alone.shape != alone.shape:
        raise ExportError(str(path), f"outputs have shape {got.shape}, torch gives {expected.shape}")

    rounding = ROUNDING_ULPS * float(np.finfo(np.float32).eps) * float(np.abs(expected).max())
    spread = float(np.sqrt(np.mean(expected.std(axis=0) ** 2)))
    tolerance = max(RELATIVE_TOLERANCE * spread, rounding)
    error = float(max(np.abs(got - expected).max(), np.abs(got_alone - alone).max()))
    constant = _range_over_images(expected) <= rounding
    if not constant and _range_over_images(got) <= rounding:
        raise ExportError(str(path), f"outputs do not depend on the input, but torch's vary by {spread:.3g}")
    if not error <= tolerance:  # also if the error is NaN
        raise ExportError(
            str(path), f"outputs differ from torch's by {error:.3g}, more than {tolerance:.3g} (spread {spread:.3g})"
        )
    return Parity(error, tolerance, constant)


def check_structure(path: Path, input_shape: tuple[int, int, int]) -> None:
    """Check that `path` is valid, self-contained ONNX with the one agreed input; see `check_parity`.

    Raises:
        ExportError: it is not.
    """
    import onnx

    proto = onnx.load(path, load_external_data=False)
    if any(onnx.external_data_helper.uses_external_data(tensor) for tensor in proto.graph.initializer):
        problem = "keeps weights in another file, must be one self-contained file"
        raise ExportError(str(path), problem, code="unsupported")
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(str(path), f"is not valid ONNX: {str(error).splitlines()[0]}") from error
    inputs = [(value.name, _signature(value.type.tensor_type)) for value in proto.graph.input]
    wanted = [("input", (onnx.TensorProto.FLOAT, "batch", *input_shape))]
    if inputs != wanted:
        raise ExportError(str(path), f"has inputs {inputs}, must have {wanted}")


def _signature(tensor: Any) -> tuple[int | str, ...]:
    return (tensor.elem_type, *(dim.dim_param or dim.dim_value for dim in tensor.shape.dim))


def _varied_images(input_shape: tuple[int, int, int]) -> torch.Tensor:
    """Three different images `(3, C, H, W)`: noise, bright strong noise, a smooth ramp. Always the same ones."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *input_shape, generator=generator)
    ramp = torch.linspace(-2, 2, input_shape[1] * input_shape[2]).view(1, *input_shape[1:]).expand(input_shape)
    return torch.stack([noise[0], 1 + 2 * noise[1], ramp])


def _run(path: Path, batches: list[np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [np.asarray(session.run(["logits"], {"input": batch})[0], dtype=np.float64) for batch in batches]


def _range_over_images(outputs: np.ndarray) -> float:
    return float(np.ptp(outputs, axis=0).max())
