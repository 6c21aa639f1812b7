"""ONNX files made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def make_file(path: Path, inputs: list[tuple[str, int, list[int | str]]]) -> Path:
    """A network that hands each input on."""
    values = [helper.make_tensor_value_info(*value) for value in inputs]
    outputs = [helper.make_tensor_value_info(f"{name}_out", kind, shape) for name, kind, shape in inputs]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in inputs]
    return _save(path, helper.make_graph(nodes, "g", values, outputs))


def make_external_file(path: Path, weights: str) -> Path:
    """A sum with 1000 numbers, which lie in a file beside it."""
    table = numpy_helper.from_array(np.ones((1, 1000), dtype=np.float32), "table")
    node = helper.make_node("Add", ["x", "table"], ["y"])
    graph = helper.make_graph([node], "g", [_floats("x", 1000)], [_floats("y", 1000)], [table])
    (path.parent / weights).parent.mkdir(exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, location=weights, size_threshold=0)
    return path


def make_custom_file(path: Path, domain: str, operator: str) -> Path:
    """A network of one operator that nobody knows."""
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    return _save(path, helper.make_graph([node], "g", [_floats("x", 4)], [_floats("y", 4)]), domain)


def make_endless_file(path: Path) -> Path:
    """A network that goes round a loop until the end of time."""
    scalars = [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("going", 9))]
    steps = [helper.make_node("Identity", ["going"], ["goes_on"]), helper.make_node("Identity", ["a"], ["b"])]
    outs = [helper.make_tensor_value_info("goes_on", 9, []), _floats("b", 4)]
    body = helper.make_graph(steps, "body", [*scalars, _floats("a", 4)], outs)
    rounds = numpy_helper.from_array(np.array(1 << 62), "rounds")
    yes = numpy_helper.from_array(np.array(True), "yes")
    node = helper.make_node("Loop", ["rounds", "yes", "x"], ["y"], body=body)
    return _save(path, helper.make_graph([node], "g", [_floats("x", 4)], [_floats("y", 4)], [rounds, yes]))


def _floats(name: str, size: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])


def _save(path: Path, graph: onnx.GraphProto, *domains: str) -> Path:
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path
