"""Random inputs for any ONNX file, generated from the file's own description of its inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from espalier.export.devices.agent.errors import Refused

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_BYTES = {"tensor(uint8)": np.uint8, "tensor(int8)": np.int8}
_INTEGERS = {
    "tensor(int16)": np.int16,
    "tensor(uint16)": np.uint16,
    "tensor(int32)": np.int32,
    "tensor(uint32)": np.uint32,
    "tensor(int64)": np.int64,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
}


def make_inputs(onnx_file: str, arguments: list[Any], batch: int, seed: int) -> dict[str, np.ndarray]:
    """One array for each input of the session's `get_inputs()`; the same arrays for the same seed.

    Floats are standard normal, 8-bit integers (images) fill their range, wider integers are 0 or 1: those are mostly
    indices or masks, and 0 and 1 are valid in every table.

    Args:
        onnx_file: path for error messages.
        arguments: the session's inputs.
        batch: size of a symbolic first dimension.
        seed: of the random values.

    Raises:
        Refused: the first input has a fixed batch other than `batch`, a dimension after the first is symbolic, or
            an input has an unsupported type. The input is named.
    """
    generator = np.random.default_rng(seed)
    inputs: dict[str, np.ndarray] = {}
    for argument in arguments:
        where = f"{onnx_file}: input {argument.name!r}"
        shape = list(argument.shape)
        for position, size in enumerate(shape):
            if isinstance(size, int):
                continue
            if position > 0:
                problem = f"dimension {position} is symbolic ({size or 'unnamed'}), only the batch may be"
                raise Refused(where, problem, code="unsupported")
            shape[position] = batch
        # Only the first input must have the batch: a further one may be a table of any fixed size.
        if not inputs and shape and shape[0] != batch:
            raise Refused(where, f"has a fixed batch, {batch} cannot be run", allowed=[shape[0]], code="mismatch")
        inputs[argument.name] = _random(where, argument.type, shape, generator)
    return inputs


def _random(where: str, kind: str, shape: list[int], generator: np.random.Generator) -> np.ndarray:
    if kind in _FLOATS:
        return np.asarray(generator.standard_normal(shape), dtype=_FLOATS[kind])
    if kind in _BYTES:
        limits = np.iinfo(_BYTES[kind])
        return np.asarray(generator.integers(limits.min, limits.max, shape, endpoint=True), dtype=_BYTES[kind])
    if kind in _INTEGERS:
        return np.asarray(generator.integers(0, 2, shape), dtype=_INTEGERS[kind])
    allowed = [*_FLOATS, *_BYTES, *_INTEGERS]
    raise Refused(where, f"has type {kind}", allowed=allowed, given=kind, code="unsupported")
