"""ONNX files made by hand."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper


def make_file(path: Path, inputs: list[tuple[str, int, list[int | str]]]) -> Path:
    """A network that hands each input on."""
    values = [helper.make_tensor_value_info(*value) for value in inputs]
    outputs = [helper.make_tensor_value_info(f"{name}_out", kind, shape) for name, kind, shape in inputs]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in inputs]
    graph = helper.make_graph(nodes, "g", values, outputs)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path
