"""Time by node: of a trace by hand, of an optimised network by hand, and of real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_networks import SHAPE, small_network

from espalier.export.devices.agent.operators import nodes_of
from espalier.export.devices.base import MeasureSpec
from espalier.export.devices.local import LocalDevice
from espalier.export.fusion import Origin, origins
from espalier.export.onnx import export_onnx
from espalier.export.operators import RUNTIME, UNNAMED, profile_operators, scaled_profile


def event(name: str, ts: int, dur: int, index: int = 0, op: str = "Conv") -> dict[str, Any]:
    args = {"op_name": op, "node_index": str(index), "provider": "CPUExecutionProvider"}
    return {"ph": "X", "cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}


def run(ts: int, dur: int) -> dict[str, Any]:
    return {"ph": "X", "cat": "Session", "name": "model_run", "ts": ts, "dur": dur, "args": {}}


def test_nodes_of_a_trace_by_hand() -> None:
    events = [
        {"ph": "M", "name": "process_name"},
        run(0, 100),
        event("a", 10, 80),  # the first run warms up
        run(200, 100),
        event("a", 210, 20),
        event("loop", 240, 50, 1, "Loop"),
        event("inner", 250, 30, 2),  # in the time of the loop
        run(400, 100),
        event("a", 410, 40),
        event("loop", 460, 30, 1, "Loop"),
    ]
    assert nodes_of(events, 2) == [
        {"name": "a", "op": "Conv", "provider": "CPUExecutionProvider", "ms": pytest.approx(0.03)},
        {"name": "loop", "op": "Loop", "provider": "CPUExecutionProvider", "ms": pytest.approx(0.04)},
    ]


def test_times_are_scaled_to_the_timed_total() -> None:
    nodes = [
        {"name": name, "op": op, "provider": None} for name, op in (("a", "Conv"), ("b", "Conv"), ("c", "Reorder"))
    ]
    times_ms = np.array([[1.0, 2.0, 1.0], [3.0, 4.0, 1.0]])  # shares 1/4, 1/2, 1/4 and 3/8, 1/2, 1/8
    found = {
        "a": Origin("layers.0.0", ("Conv x", "Relu y")),
        "b": Origin("layers.0.1", ("Conv z",)),
        "c": Origin("", ()),
    }
    profile = scaled_profile(nodes, times_ms, found, measured_ms=16.0)
    assert [kernel.ms for kernel in profile.kernels] == pytest.approx([16 * 5 / 16, 16 / 2, 16 * 3 / 16])
    assert [kernel.module for kernel in profile.kernels] == ["layers.0.0", "layers.0.1", RUNTIME]
    assert profile.kernels[0].absorbed == ("Conv x", "Relu y")
    assert profile.kernels[0].ci95 == (0.25, 0.375)
    assert profile.profiled_ms == pytest.approx(6.0)
    for groups in (profile.kernels, profile.by_operator, profile.by_module):
        assert sum(one.ms for one in groups) == pytest.approx(16.0)
        assert sum(one.share for one in groups) == pytest.approx(1.0)
    assert [(group.name, group.kernels, group.ms) for group in profile.by_module] == [
        ("layers.0", 2, pytest.approx(13.0)),
        (RUNTIME, 1, pytest.approx(3.0)),
    ]
    assert [(group.name, group.kernels) for group in profile.by_operator] == [("Conv", 2), ("Reorder", 1)]


def convolutions(path: Path) -> Path:
    """Two convolutions with an activation after each, the first one's weights named as torch names them."""
    weight = np.zeros((4, 4, 1, 1), np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "stem.conv.weight"], ["t1"], name="first"),
        helper.make_node("HardSwish", ["t1"], ["t2"], name="act"),
        helper.make_node("Identity", ["other"], ["constant"], name="folded"),
        helper.make_node("Conv", ["t2", "constant"], ["t3"], name="/body/body.1/conv/Conv"),
        helper.make_node("Relu", ["t3"], ["y"], name="last"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 2, 2]) for name in "xy"]
    weights = [numpy_helper.from_array(weight, name) for name in ("stem.conv.weight", "other")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_what_fused_nodes_have_absorbed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "reorder"], ["reorder_token_0"], name="t1_nchwc"),  # named by the first tensor
        helper.make_node("Conv", ["reorder_token_0", "reorder_token_1"], ["reorder_token_2"], name="y_nchwc"),
        helper.make_node("ReorderOutput", ["reorder_token_2"], ["y"], name="ReorderOutput"),
    ]
    optimized = helper.make_model(helper.make_graph(nodes, "g", [], [])).SerializeToString()
    assert origins(convolutions(tmp_path / "m.onnx"), optimized) == {
        "t1_nchwc": Origin("stem.conv", ("Conv first", "HardSwish act")),
        "y_nchwc": Origin("body.1.conv", ("Conv /body/body.1/conv/Conv", "Relu last")),
        "ReorderOutput": Origin("", ()),
    }


@pytest.mark.parametrize(
    ("scopes", "module"),
    [
        ("['', 'body', 'body.act', 'relu']", "body.act"),
        ("['', 'space', 'space.stem.act', 'relu']", "stem.act"),  # traced inside a module `space`; see the weights
        ("['', '_empty_nn_module_stack_from_metadata_hook', 'relu']", ""),
        ("['', 'relu']", ""),
    ],
)
def test_modules_that_the_dynamo_exporter_has_noted(scopes: str, module: str, tmp_path: Path) -> None:
    path = convolutions(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.node[-1].metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    onnx.save(model, path)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["t3"], name="conv"),
        helper.make_node("Relu", ["t3"], ["y"], name="r"),
    ]
    optimized = helper.make_model(helper.make_graph(nodes, "g", [], [])).SerializeToString()
    assert origins(path, optimized)["r"].module == module


def test_names_that_are_not_a_nodes_own_say_nothing(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], [output], name="") for output in ("t2", "y")]
    optimized = helper.make_model(helper.make_graph(nodes, "g", [], [])).SerializeToString()
    assert origins(convolutions(tmp_path / "m.onnx"), optimized) == {}


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
def test_the_modules_of_a_real_network(exporter: Any, onnx_file: Path, tmp_path: Path) -> None:
    path = onnx_file
    if exporter == "torchscript":
        path = export_onnx(small_network(), SHAPE, tmp_path / "m.onnx", exporter=exporter).path
    spec = MeasureSpec(threads=1, sessions=2, seconds=0.02, min_runs=3)
    device = LocalDevice()
    measurement = device.measure(path, spec)
    profile = profile_operators(device, path, measurement, spec)
    device.close()
    assert sum(kernel.ms for kernel in profile.kernels) == pytest.approx(measurement.latency_ms)
    modules = {kernel.module for kernel in profile.kernels}
    assert UNNAMED not in modules
    (convolution,) = (kernel for kernel in profile.kernels if kernel.operator in ("Conv", "FusedConv"))
    assert [name.split()[0] for name in convolution.absorbed] == ["Conv", "Relu"]
    (linear,) = (kernel for kernel in profile.kernels if kernel.operator in ("Gemm", "FusedGemm"))
    assert linear.module == "6"
