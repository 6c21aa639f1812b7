"""Check that an ONNX file computes what the torch network computes: structure first, then numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from espalier.export.errors import ExportError
from espalier.export.finite import first_not_finite
from espalier.nas.network_inputs import DTYPES, Input, as_inputs, call, named_outputs

RELATIVE_TOLERANCE = 1e-3
"""Allowed error, as a share of how much the outputs change with the input. Two float32 runtimes differ by about 1e-5
of it, a wrong attribute (padding, epsilon, a dropped bias) by more than 1e-2: a thousandth is far from both."""

UNUSUAL_TOLERANCE = 1e-2
"""The same for inputs far from what a network is made for, where saturation amplifies rounding. They are there to reach
other branches of the network, which differ by far more."""

ROUNDING_ULPS = 64
"""Error that float32 rounding alone explains, in units of the last place of the largest output. It matters only if
outputs hardly change with the input (a constant network, an untrained one with large biases)."""

MORE_BATCHES = (2, 33)
"""Further sizes of batches that are checked if a tracer could not tell whether the network depends on the batch."""
OWN_IMAGES = 16
"""Images of the user's that are compared at most."""


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


def check_parity(
    model: nn.Module,
    shape: tuple[int, ...] | Sequence[Input],
    path: Path,
    *,
    images: Tensor | None = None,
    batches: Sequence[int] = (),
) -> Parity:
    """Check the file at `path` against `model` (on the CPU, in eval mode) with ONNX Runtime on the CPU.

    The file must be valid ONNX with no external data, have the network's inputs `(batch, ...)` with a symbolic `batch`,
    and give torch's outputs at batch 1 and 3, within `RELATIVE_TOLERANCE` times the spread of torch's outputs over the
    images (root mean square over outputs of their standard deviation), but never less than `ROUNDING_ULPS`. Inputs of
    other scales and signs must agree as well, within `UNUSUAL_TOLERANCE` of their own spread.

    Args:
        model: the network.
        shape: of its only input without the batch, or all its inputs.
        path: the file.
        images: inputs of the user's `(n, *shape)`, which must agree like the others; only for a single input.
        batches: further sizes of batches to check.

    Raises:
        ExportError: one of these conditions does not hold; the numbers are given.
    """
    inputs = as_inputs(shape)
    check_structure(path, inputs)
    runs = _Runs(model, inputs, path)
    usual = _varied(inputs)
    found = runs.compare(usual, RELATIVE_TOLERANCE)
    least = [parity.tolerance for parity in found]
    alone = runs.compare([value[:1] for value in usual], RELATIVE_TOLERANCE, least)
    if images is not None and len(images):
        runs.compare([images[:OWN_IMAGES].float()], RELATIVE_TOLERANCE, least)
    for group in _unusual(inputs):
        runs.compare(group, UNUSUAL_TOLERANCE, least, must_be_finite=False)
    for size in batches:
        repeated = [value.repeat(-(-size // 3), *[1] * (value.ndim - 1))[:size] for value in usual]
        runs.compare(repeated, RELATIVE_TOLERANCE, least)
    return max(
        (
            replace(three, max_abs_error=max(three.max_abs_error, one.max_abs_error))
            for three, one in zip(found, alone, strict=True)
        ),
        key=lambda parity: parity.max_abs_error / (parity.tolerance or 1.0),
    )


class _Runs:
    """Both networks, on the same inputs."""

    def __init__(self, model: nn.Module, inputs: Sequence[Input], path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        self._model, self._inputs, self._path = model, inputs, path
        self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def compare(
        self,
        values: Sequence[Tensor],
        relative: float,
        least: Sequence[float] | None = None,
        *,
        must_be_finite: bool = True,
    ) -> list[Parity]:
        """Compare all outputs, one after the other.

        Args:
            values: of the inputs.
            relative: allowed error as a share of the spread.
            least: allowed error of each output, where that is smaller; None for none.
            must_be_finite: torch's own outputs must be; else nothing is compared where they are not.

        Raises:
            ExportError: they differ.
        """
        with torch.no_grad():
            expected = [
                value.double().numpy() for value in named_outputs(call(self._model, self._inputs, values)).values()
            ]
        if not all(np.isfinite(one).all() for one in expected):
            if not must_be_finite:
                return []
            at = first_not_finite(self._model, lambda: call(self._model, self._inputs, values))
            problem = "torch's own outputs are not finite on finite inputs, so nothing can be compared with them"
            raise ExportError(str(self._path), problem if at is None else f"{problem}; the first are those of {at}")
        feed = {one.name: value.contiguous().numpy() for one, value in zip(self._inputs, values, strict=True)}
        got = [np.asarray(value, dtype=np.float64) for value in self._session.run(None, feed)]
        if [one.shape for one in got] != [one.shape for one in expected]:
            shapes = [", ".join(str(one.shape) for one in some) for some in (got, expected)]
            raise ExportError(str(self._path), f"outputs have shape {shapes[0]}, torch gives {shapes[1]}")
        least = least or [0.0] * len(expected)
        triples = zip(got, expected, least, strict=True)
        return [self._one(have, want, relative, floor) for have, want, floor in triples]

    def _one(self, got: np.ndarray, expected: np.ndarray, relative: float, least: float) -> Parity:
        if not expected.size:
            return Parity(0.0, least, constant=True)
        rounding = ROUNDING_ULPS * float(np.finfo(np.float32).eps) * float(np.abs(expected).max())
        batched = expected if expected.ndim else expected[None]
        spread = float(np.sqrt(np.mean(batched.std(axis=0) ** 2)))
        tolerance = max(relative * spread, rounding, least)
        error = float(np.abs(got - expected).max())
        constant = _range_over_images(expected) <= rounding
        if len(batched) > 1 and not constant and _range_over_images(got) <= rounding:
            raise ExportError(str(self._path), f"outputs do not depend on the input, but torch's vary by {spread:.3g}")
        if not error <= tolerance:  # also if the error is NaN
            problem = f"outputs differ from torch's by {error:.3g}, more than {tolerance:.3g} (spread {spread:.3g})"
            raise ExportError(str(self._path), problem)
        return Parity(error, tolerance, constant)


def check_structure(path: Path, inputs: Sequence[Input]) -> None:
    """Check that `path` is valid, self-contained ONNX with the agreed inputs; see `check_parity`.

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
    found = [(value.name, _signature(value.type.tensor_type)) for value in proto.graph.input]
    types = {name: onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in DTYPES}
    wanted = [(one.name, (types[one.dtype], "batch", *one.shape)) for one in inputs]
    if found != wanted:
        raise ExportError(str(path), f"has inputs {found}, must have {wanted}")


def _signature(tensor: Any) -> tuple[int | str, ...]:
    return (tensor.elem_type, *(dim.dim_param or dim.dim_value for dim in tensor.shape.dim))


def _varied(inputs: Sequence[Input]) -> list[Tensor]:
    """Three different values of each input: noise, bright strong noise, a smooth ramp. Always the same ones."""
    generator = torch.Generator().manual_seed(0)
    return [_varied_floats(one, generator) if one.is_float else _varied_integers(one, generator) for one in inputs]


def _varied_floats(one: Input, generator: torch.Generator) -> Tensor:
    noise = torch.randn(2, *one.shape, generator=generator)
    plane = one.shape[-2:]
    ramp = torch.linspace(-2, 2, int(np.prod(plane))).view(plane).expand(one.shape)
    return torch.stack([noise[0], 1 + 2 * noise[1], ramp])


def _varied_integers(one: Input, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (3, *one.shape), generator=generator).to(DTYPES[one.dtype])


def _unusual(inputs: Sequence[Input]) -> Iterator[list[Tensor]]:
    """Batches of other scales and signs: faint, strong, all positive, all negative.

    None without contrast: an instance norm amplifies the rounding of a constant image to any size.
    """
    generator = torch.Generator().manual_seed(1)
    changes: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda x: 0.01 * x,
        lambda x: 30 * x,
        lambda x: 4 * x.abs(),
        lambda x: -4 * x.abs(),
    )
    usual = [_varied_floats(one, generator) if one.is_float else _varied_integers(one, generator) for one in inputs]
    if not any(one.is_float for one in inputs):
        yield usual
        return
    for change in changes:
        yield [change(value) if one.is_float else value for one, value in zip(inputs, usual, strict=True)]


def _range_over_images(outputs: np.ndarray) -> float:
    return float(np.ptp(outputs, axis=0).max()) if outputs.ndim else 0.0
