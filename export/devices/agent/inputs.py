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

MOST_NUMBERS = 2**30
"""In one input: 8 GiB, as standard normal numbers are drawn in double precision."""


def make_inputs(
    onnx_file: str, arguments: list[Any], batch: int, seed: int, dims: dict[str, int] | None = None
) -> dict[str, np.ndarray]:
    """One array for each input of the session's `get_inputs()`; the same arrays for the same seed.

    Floats are standard normal, 8-bit integers (images) fill their range, wider integers are 0 or 1: those are mostly
    indices or masks, and 0 and 1 are valid in every table.

    Args:
        onnx_file: path for error messages.
        arguments: the session's inputs.
        batch: size of a symbolic first dimension, and of others of the same name.
        seed: of the random values.
        dims: sizes of other symbolic dimensions by name; one without a name is called `INPUT.POSITION`.

    Raises:
        Refused: the first input has a fixed batch other than `batch`, a symbolic dimension has no size, or an input
            has an unsupported type or a dimension of size 0. The input is named.
    """
    generator = np.random.default_rng(seed)
    sizes = {**dict.fromkeys(batch_names(arguments), batch), **(dims or {})}
    missing = [name for name in open_dimensions(arguments) if name not in sizes]
    if missing:
        problem = f"has open dimensions besides the batch: {', '.join(missing)}; each needs a size ({missing[0]}=128)"
        raise Refused(onnx_file, problem, code="missing")
    inputs: dict[str, np.ndarray] = {}
    for argument in arguments:
        where = f"{onnx_file}: input {argument.name!r}"
        shape = [size if isinstance(size, int) else _size(argument, at, sizes, batch) for at, size in _sizes(argument)]
        if min(shape, default=1) < 1:
            raise Refused(where, f"has a dimension of size {min(shape)}, so nothing can be run", code="unsupported")
        numbers = int(np.prod(shape, dtype=object)) if shape else 1
        if numbers > MOST_NUMBERS:
            problem = f"has {numbers:,} numbers, at most {MOST_NUMBERS:,} are generated"
            raise Refused(where, problem, code="out_of_range")
        # Only the first input must have the batch: a further one may be a table of any fixed size.
        if not inputs and shape and shape[0] != batch and isinstance(argument.shape[0], int):
            raise Refused(where, f"has a fixed batch, {batch} cannot be run", allowed=[shape[0]], code="mismatch")
        inputs[argument.name] = _random(where, argument.type, shape, generator)
    return inputs


def open_dimensions(arguments: list[Any]) -> list[str]:
    """The names of the symbolic dimensions that are not the batch; one without a name is called `INPUT.POSITION`."""
    batches = batch_names(arguments)
    names = [
        size or f"{argument.name}.{at}"
        for argument in arguments
        for at, size in _sizes(argument)
        if not isinstance(size, int) and at > 0 and size not in batches
    ]
    return list(dict.fromkeys(names))


def sized(argument: Any, dims: dict[str, int]) -> list[Any]:
    """The shape of an input, with the sizes of the symbolic dimensions that have one."""
    return [
        size if isinstance(size, int) or at == 0 else dims.get(size or f"{argument.name}.{at}", size)
        for at, size in _sizes(argument)
    ]


def batch_names(arguments: list[Any]) -> list[str]:
    """The names of symbolic first dimensions."""
    firsts = [argument.shape[0] for argument in arguments if argument.shape]
    return [name for name in firsts if isinstance(name, str) and name]


def _sizes(argument: Any) -> list[tuple[int, Any]]:
    return list(enumerate(argument.shape or ()))


def _size(argument: Any, at: int, sizes: dict[str, int], batch: int) -> int:
    return sizes.get(argument.shape[at] or f"{argument.name}.{at}", batch)


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
