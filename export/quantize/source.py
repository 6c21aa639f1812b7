"""The ONNX file to quantise: what goes in and out, and whether anything can be done with it."""

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
        input, output: names of its one input and its first output.
        image_shape: `(C, H, W)` of the input.
        batch: its fixed batch; None where it is open.
    """

    path: Path
    input: str
    output: str
    image_shape: tuple[int, int, int]
    batch: int | None


def read_source(path: Path) -> Source:
    """Look at the file, and see that it can be quantised.

    Raises:
        ExportError: it is no ONNX file that ONNX Runtime can run, is quantised or in half precision already, has
            operators of another domain, weights in other files, several inputs, or an input that is not images.
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # of protobuf, or of the system
        raise ExportError(str(path), f"cannot be read as ONNX ({reason(error)})") from error
    _check_operators(path, model)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise ExportError(str(path), f"has {len(inputs)} inputs, one of images is wanted")
    tensor = inputs[0].type.tensor_type
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if tensor.elem_type != onnx.TensorProto.FLOAT or len(sizes) != 4 or None in sizes[1:]:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name if tensor.elem_type else "unknown"
        shape = ", ".join("?" if size is None else str(size) for size in sizes)
        raise ExportError(str(path), f"its input is {kind} ({shape}), float32 (batch, C, H, W) is wanted")
    channels, height, width = (int(size or 0) for size in sizes[1:])
    return Source(path, inputs[0].name, model.graph.output[0].name, (channels, height, width), sizes[0])


def _check_operators(path: Path, model: Any) -> None:
    import onnx

    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    local = {function.domain for function in model.functions}
    for node in nodes:
        if node.domain not in (*_STANDARD, _RUNTIME, *local):
            raise ExportError(str(path), f"has the custom operator {node.domain}.{node.op_type}, which cannot be run")
        if node.op_type in _QUANTISED or node.op_type.startswith(("QLinear", "QAttention", "QGemm")):
            raise ExportError(str(path), f"is quantised already (it has the operator {node.op_type})")
    for tensor in model.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16):
            raise ExportError(str(path), f"is in half precision already (its weight {tensor.name!r})")
        if onnx.external_data_helper.uses_external_data(tensor):
            raise ExportError(str(path), "keeps weights in another file; one self-contained file is wanted")


def _graphs(graph: Any) -> Any:
    """The graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
