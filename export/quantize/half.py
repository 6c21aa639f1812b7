"""Half precision: weights and activations in float16 or bfloat16, inputs and outputs in float32."""

from __future__ import annotations

import copy
from typing import Any

BFLOAT16_OPSET = 22
"""The first opset in which convolutions and pools support bfloat16."""


def at_opset(model: Any, least: int) -> Any:
    """The ONNX model, converted to opset `least` if its own is older."""
    import onnx

    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=least)
    return model if opset >= least else onnx.version_converter.convert_version(model, least)


def as_float16(model: Any) -> Any:
    """An ONNX model in float16, by ONNX Runtime's converter; values beyond 65,504 are clipped to it."""
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    half = ONNXModel(convert_float_to_float16(copy.deepcopy(model), keep_io_types=True))
    half.topological_sort()  # the converter leaves its casts at the end
    return half.model


def as_bfloat16(model: Any) -> Any:
    """An ONNX model in bfloat16, which has float32's range and 8 bits of precision.

    ONNX Runtime has no converter for it. The graph is that of `as_float16`, whose casts are in the right places, with
    the type replaced everywhere; weights are rounded from float32 to nearest even.
    """
    import ml_dtypes
    from onnx import TensorProto, numpy_helper

    model = at_opset(model, BFLOAT16_OPSET)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    half = as_float16(model)
    for tensor in half.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            numbers = numpy_helper.to_array(weights[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(numbers.astype(ml_dtypes.bfloat16), tensor.name))
    for value in half.graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    for node in half.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
            elif attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT16:
                numbers = numpy_helper.to_array(attribute.t).astype(ml_dtypes.bfloat16)
                attribute.t.CopyFrom(numpy_helper.from_array(numbers, attribute.t.name))
    return half
