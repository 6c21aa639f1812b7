"""Lossless encodings of the weights of an ONNX file that are mostly zeros, in fewer bytes.

`packed` stores the nonzero values and their positions, and standard operators rebuild the weight from them. They depend
only on constants, so that ONNX Runtime folds them when it loads the file; what runs is the plain network. Each weight
uses the smaller of two encodings of the positions, at density d (bytes for each float32 number of the weight):

    gaps: a byte for each value, its distance from the previous one, with zeros inserted if it is too far; about 5 d
    mask: a bit for each number; 4 d + 1/8, which is less above d = 1/8

The gaps are the relative index of Han, Mao and Dally, Deep Compression (ICLR 2016), section 2. `coo` is ONNX's own
`sparse_initializer`: an index of 8 bytes for each value, 12 d, more than the plain 4 above d = 1/3.

A negative zero is written as a zero, which gives equal outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

MIN_OPSET = 11
"""The first opset with all operators that rebuild a weight (`CumSum`, `BitShift`, `ScatterElements`)."""

FARTHEST = 255
"""The largest gap that fits into a byte."""

Array = np.ndarray[Any, np.dtype[Any]]


def packed(model: Any) -> Any | None:
    """A copy of the ONNX `model` with each weight packed that becomes smaller; None if none does.

    Considered are initialisers of the main graph in 8-bit integers or 16 to 64-bit floats, except inputs with a
    default.
    """
    import onnx

    nodes: list[Any] = []

    def encode(tensor: Any) -> list[Any] | None:
        weight = onnx.numpy_helper.to_array(tensor)
        initializers, made = min(_gaps(tensor.name, weight), _mask(tensor.name, weight), key=_size)
        if _size((initializers, made)) >= tensor.ByteSize():
            return None
        nodes.extend(made)
        return initializers

    smaller = _rewritten(model, encode)
    if smaller is None:
        return None
    graph = smaller.graph
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])  # nodes must be in topological order: the rebuilt weights come first
    return smaller


def coo(model: Any) -> Any | None:
    """A copy of the ONNX `model` with `sparse_initializer`s for the weights that become smaller; None if none does.

    ONNX's checker rejects such a weight if an operator needs a dense tensor, as convolutions do. ONNX Runtime makes it
    dense when it loads the file.
    """
    import onnx

    sparse: list[Any] = []

    def encode(tensor: Any) -> list[Any] | None:
        weight = onnx.numpy_helper.to_array(tensor)
        flat, places = _flat(weight)
        values = onnx.numpy_helper.from_array(flat[places], tensor.name)
        indices = onnx.numpy_helper.from_array(places, f"{tensor.name}:indices")
        made = onnx.helper.make_sparse_tensor(values, indices, weight.shape)
        if made.ByteSize() >= tensor.ByteSize():
            return None
        sparse.append(made)
        return []

    smaller = _rewritten(model, encode)
    if smaller is not None:
        smaller.graph.sparse_initializer.extend(sparse)
    return smaller


def count_zeros(model: Any) -> tuple[int, int]:
    """The number of zeros in the weights, and the number of all their values."""
    import onnx

    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if _is_weight(tensor)]
    return sum(int((array == 0).sum()) for array in arrays), sum(array.size for array in arrays)


def _rewritten(model: Any, encode: Callable[[Any], list[Any] | None]) -> Any | None:
    """A copy of `model` with its weights replaced by their encodings; None if `encode` returns None for all."""
    copy = type(model)()
    copy.CopyFrom(model)
    graph = copy.graph
    overridable = {value.name for value in graph.input}
    initializers: list[Any] = []
    any_smaller = False
    for tensor in graph.initializer:
        smaller = encode(tensor) if _is_weight(tensor) and tensor.name not in overridable else None
        any_smaller |= smaller is not None
        initializers.extend([tensor] if smaller is None else smaller)
    if not any_smaller:
        return None
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    return copy


def _is_weight(tensor: Any) -> bool:
    from onnx import TensorProto as T

    return tensor.data_type in (T.FLOAT, T.FLOAT16, T.DOUBLE, T.INT8, T.UINT8) and len(tensor.dims) > 0


def _flat(weight: Array) -> tuple[Array, Array]:
    """The weight as a vector, and the positions of its nonzero values."""
    flat = weight.reshape(-1)
    return flat, np.flatnonzero(flat).astype(np.int64)


def _size(parts: tuple[list[Any], list[Any]]) -> int:
    return sum(part.ByteSize() for group in parts for part in group)


def _gaps(name: str, weight: Array) -> tuple[list[Any], list[Any]]:
    """Initialisers and nodes: scatter(zeros, cumsum(gaps), values)."""
    flat, places = _flat(weight)
    gaps, values = relative_index(places, flat[places])
    return _graph(
        name,
        weight,
        {"gaps": gaps, "values": values, "axis": np.int64(0), "size": np.array([flat.size], np.int64)},
        [
            ("Cast", ["gaps"], "steps", {"to": _int64()}),
            ("CumSum", ["steps", "axis"], "places", {}),
            ("ConstantOfShape", ["size"], "zeros", {"value": _zero(weight.dtype)}),
            ("ScatterElements", ["zeros", "places", "values"], "flat", {"axis": 0}),
        ],
    )


def relative_index(places: Array, values: Array) -> tuple[Array, Array]:
    """Gaps of one byte between the increasing `places` (the first one from 0), and the values after each gap.

    A gap larger than `FARTHEST` is split into several; the positions in between get the value zero.

    Args:
        places: positions of the nonzero values, `(n,)`.
        values: the nonzero values, `(n,)`.

    Returns:
        Gaps and values, both `(n + inserted zeros,)`; the cumulative sum of the gaps gives the positions.
    """
    distances = np.diff(places, prepend=0)
    # Zeros to insert before each value: a distance of 1 to FARTHEST needs none, up to 2 FARTHEST one, and so on.
    fillers = np.maximum(distances - 1, 0) // FARTHEST
    last = np.cumsum(fillers + 1) - 1  # index of each real value in the result, after its inserted zeros
    gaps = np.full(places.size + fillers.sum(), FARTHEST, dtype=np.uint8)
    # Each inserted zero advances by FARTHEST; the real value by what is left of its distance.
    gaps[last] = distances - FARTHEST * fillers
    filled = np.zeros(gaps.size, dtype=values.dtype)
    filled[last] = values
    return gaps, filled


def _mask(name: str, weight: Array) -> tuple[list[Any], list[Any]]:
    """Initialisers and nodes: with b the bits of the mask, gather([0, values], b cumsum(b)).

    b cumsum(b) is the rank (from 1) of each nonzero value, and 0 where the bit is 0: an index into [0, values].

    ONNX Runtime does not fold `NonZero`, which would give the positions directly.
    """
    flat, places = _flat(weight)
    return _graph(
        name,
        weight,
        {
            "mask": np.packbits(flat != 0).reshape(-1, 1),
            "values": np.concatenate([np.zeros(1, dtype=flat.dtype), flat[places]]),
            "shifts": np.arange(7, -1, -1, dtype=np.uint8),
            "two": np.uint8(2),
            "line": np.array([-1], np.int64),
            "axis": np.int64(0),
            "start": np.array([0], np.int64),
            "size": np.array([flat.size], np.int64),
        },
        [
            # `np.packbits` stores eight bits in a byte, the first in the highest bit: shift each to the lowest.
            ("BitShift", ["mask", "shifts"], "shifted", {"direction": "RIGHT"}),
            ("Mod", ["shifted", "two"], "last bits", {}),
            ("Reshape", ["last bits", "line"], "padded", {}),
            # The last byte may have unused bits.
            ("Slice", ["padded", "start", "size"], "unpadded", {}),
            ("Cast", ["unpadded"], "bits", {"to": _int32()}),
            ("CumSum", ["bits", "axis"], "counts", {}),
            ("Mul", ["bits", "counts"], "ranks", {}),
            ("Gather", ["values", "ranks"], "flat", {"axis": 0}),
        ],
    )


def _graph(
    name: str, weight: Array, constants: dict[str, Any], steps: list[tuple[str, list[str], str, dict[str, Any]]]
) -> tuple[list[Any], list[Any]]:
    """Initialisers for `constants` and nodes for `steps`; their last result `flat` is reshaped to the weight `name`."""
    import onnx

    constants = {**constants, "shape": np.array(weight.shape, np.int64)}
    initializers = [onnx.numpy_helper.from_array(np.asarray(v), f"{name}:{key}") for key, v in constants.items()]
    nodes = [
        onnx.helper.make_node(kind, [f"{name}:{key}" for key in inputs], [f"{name}:{output}"], **attributes)
        for kind, inputs, output, attributes in steps
    ]
    nodes.append(onnx.helper.make_node("Reshape", [f"{name}:flat", f"{name}:shape"], [name]))
    return initializers, nodes


def _zero(dtype: np.dtype[Any]) -> Any:
    import onnx

    return onnx.numpy_helper.from_array(np.zeros(1, dtype=dtype))


def _int64() -> int:
    import onnx

    return int(onnx.TensorProto.INT64)


def _int32() -> int:
    import onnx

    return int(onnx.TensorProto.INT32)
