"""The ONNX file to quantise: its input and output, and whether it can be quantised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.export.errors import ExportError, reason

_STANDARD = ("", "ai.onnx")
_RUNTIME = "com.microsoft"
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")


@dataclass(frozen=True)
class Source:
    """A float32 classifier in one ONNX file.

    Attributes:
        path: the file.
        input: name of its only input.
        output: name of its first output.
        image_shape: `(C, H, W)` of the input.
        batch: its fixed batch; None if it is symbolic.
    """

    path: Path
    input: str
    output: str
    image_shape: tuple[int, int, int]
    batch: int | None


def read_source(path: Path) -> Source:
    """Read the file and check that it can be quantised.

    Raises:
        ExportError: it is not an ONNX file, is already quantised or in half precision, has operators of another
            domain, weights in other files, several inputs, or an input that is not images.
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # from protobuf, or from the system
        raise ExportError(str(path), f"cannot be read as ONNX ({reason(error)})", code="unreadable") from error
    _check_operators(path, model)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise ExportError(str(path), f"has {len(inputs)} inputs, must have one of images", code="unsupported")
    tensor = inputs[0].type.tensor_type
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if tensor.elem_type != onnx.TensorProto.FLOAT or len(sizes) != 4 or None in sizes[1:]:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name if tensor.elem_type else "unknown"
        shape = ", ".join("?" if size is None else str(size) for size in sizes)
        problem = f"its input is {kind} ({shape}), must be float32 (batch, C, H, W)"
        raise ExportError(str(path), problem, code="unsupported")
    channels, height, width = (int(size or 0) for size in sizes[1:])
    return Source(path, inputs[0].name, model.graph.output[0].name, (channels, height, width), sizes[0])


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
