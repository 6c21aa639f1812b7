"""The ONNX file to quantise: its inputs and output, and whether it can be quantised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from espalier.export.devices.agent.inputs import open_dimensions
from espalier.export.errors import ExportError, reason
from espalier.export.finite import check_tensors
from espalier.export.graph_inputs import GraphInput, graph_inputs
from espalier.nas.network_inputs import Input, prediction_name

_STANDARD = ("", "ai.onnx")
_RUNTIME = "com.microsoft"
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
_TYPES = {
    "tensor(float)": "float32",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(bool)": "bool",
}

Values = np.ndarray | Mapping[str, np.ndarray]
"""Values of a network's inputs `(n, ...)`: of its only one, or of each by its name."""


@dataclass(frozen=True)
class Source:
    """A float32 network in one ONNX file.

    Attributes:
        path: the file.
        inputs: with the sizes of all their dimensions but the batch.
        output: name of the output that is the prediction.
        batch: its fixed batch; None if it is symbolic.
        dims: sizes of the symbolic dimensions besides the batch, by name.
    """

    path: Path
    inputs: tuple[Input, ...]
    output: str
    batch: int | None
    dims: Mapping[str, int] = field(default_factory=dict)

    @property
    def input(self) -> str:
        """The name of the first input."""
        return self.inputs[0].name

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of the first input, `(C, H, W)` for images."""
        return self.inputs[0].shape

    @property
    def takes_images(self) -> bool:
        """Whether its only input is float32 `(batch, C, H, W)`."""
        return len(self.inputs) == 1 and len(self.image_shape) == 3 and self.inputs[0].is_float

    def feed(self, values: Values) -> dict[str, np.ndarray]:
        """The arguments of ONNX Runtime: arrays of the inputs' names and types."""
        named = {self.input: values} if isinstance(values, np.ndarray) else values
        return {one.name: np.ascontiguousarray(named[one.name], dtype=one.dtype) for one in self.inputs}


def length(values: Values) -> int:
    """How many items there are."""
    return len(values if isinstance(values, np.ndarray) else next(iter(values.values())))


def chosen(values: Values, which: Any) -> Values:
    """The items that a slice or an array of positions picks."""
    return values[which] if isinstance(values, np.ndarray) else {name: array[which] for name, array in values.items()}


def read_source(
    path: Path,
    *,
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    output: str | None = None,
) -> Source:
    """Read the file and check that it can be quantised.

    Args:
        path: the file.
        dims: sizes of symbolic dimensions besides the batch.
        shapes: of the data for an input, without the batch; they give the sizes that are not in `dims`. The key of the
            only input may be an empty string.
        output: name or place of the prediction; None takes `logits`, `out` or the first output.

    Raises:
        ExportError: it is not an ONNX file, is already quantised or in half precision, has operators of another
            domain, weights in other files, weights that are not finite, no inputs or outputs, inputs of another type,
            or a dimension without a size.
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # from protobuf, or from the system
        raise ExportError(str(path), f"cannot be read as ONNX ({reason(error)})", code="unreadable") from error
    _check_operators(path, model)
    check_tensors(path, model)
    given = graph_inputs(model)
    if not given or not model.graph.output:
        problem = f"has {len(given)} inputs and {len(model.graph.output)} outputs, must have at least one of each"
        raise ExportError(str(path), problem, code="unsupported")
    for one in given:
        if one.type not in _TYPES or not one.shape or any(size == 0 for size in one.shape):
            shape = ", ".join("?" if size is None else str(size) for size in one.shape)
            problem = f"its input {one.name!r} is {one.type} ({shape}), must have a batch and be {', '.join(_TYPES)}"
            raise ExportError(str(path), problem, code="unsupported")
    sizes = {**_sizes_of(given, shapes or {}), **(dims or {})}
    missing = [name for name in open_dimensions(given) if name not in sizes]
    if missing:
        options = " ".join(f"--dim {name}=SIZE" for name in missing)
        problem = f"has open dimensions besides the batch ({', '.join(missing)}), which need sizes: {options}"
        raise ExportError(str(path), problem, code="missing")
    inputs = tuple(Input(one.name, _shape(one, sizes), _TYPES[one.type]) for one in given)
    batch = given[0].shape[0]
    used = {name: sizes[name] for name in open_dimensions(given)}
    fixed = batch if isinstance(batch, int) and batch > 0 else None
    prediction = prediction_name([value.name for value in model.graph.output], output)
    return Source(path, inputs, prediction, fixed, used)


def input_names(path: Path) -> list[str]:
    """The names of a file's inputs; none if it cannot be read."""
    return [one.name for one in _inputs(path)]


def takes_images(path: Path) -> bool:
    """Whether the only input of a file is float32 `(batch, C, H, W)`, or the file cannot be read."""
    inputs = _inputs(path)
    return not inputs or (len(inputs) == 1 and inputs[0].type == "tensor(float)" and len(inputs[0].shape) == 4)


def _inputs(path: Path) -> list[GraphInput]:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return graph_inputs(onnx.load(path, load_external_data=False))
    except (DecodeError, OSError):
        return []


def _shape(one: GraphInput, sizes: Mapping[str, int]) -> tuple[int, ...]:
    names = (size or f"{one.name}.{at}" for at, size in enumerate(one.shape) if at > 0)
    return tuple(size if isinstance(size, int) else sizes[size] for size in names)


def _sizes_of(inputs: Sequence[GraphInput], shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The sizes of open dimensions that the shapes of some data give."""
    found = {}
    for one in inputs:
        shape = shapes.get(one.name, shapes.get("", ()) if len(inputs) == 1 else ())
        if len(shape) == len(one.shape) - 1:
            for at, (size, here) in enumerate(zip(one.shape[1:], shape, strict=True), start=1):
                if not isinstance(size, int):
                    found[size or f"{one.name}.{at}"] = here
    return found


def _check_operators(path: Path, model: Any) -> None:
    import onnx

    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    local = {function.domain for function in model.functions}
    for node in nodes:
        if node.domain not in (*_STANDARD, _RUNTIME, *local):
            problem = f"has the custom operator {node.domain}.{node.op_type}, which cannot be run"
            raise ExportError(str(path), problem, code="unsupported")
        if node.op_type in _QUANTISED or node.op_type.startswith(("QLinear", "QAttention", "QGemm")):
            problem = f"is already quantised (it contains the operator {node.op_type})"
            raise ExportError(str(path), problem, code="unsupported")
    for tensor in model.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16):
            problem = f"is already in half precision (its weight {tensor.name!r})"
            raise ExportError(str(path), problem, code="unsupported")
        if onnx.external_data_helper.uses_external_data(tensor):
            problem = "keeps weights in another file, must be one self-contained file"
            raise ExportError(str(path), problem, code="unsupported")


def _graphs(graph: Any) -> Any:
    """The graph and the graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
