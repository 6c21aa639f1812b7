"""The contract of every device, and what is special of this machine."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from export.devices.base import Device, MeasureSpec
from export.devices.cpu_watch import CpuWatch
from export.devices.inputs import make_inputs
from export.devices.local import LocalDevice, open_session
from nas.errors import UserError
from nas.measurement import Measurement

QUICK = MeasureSpec(threads=1, sessions=2, seconds=0.02, min_runs=3)


@pytest.fixture(params=[LocalDevice], ids=lambda kind: kind.name)
def device(request: pytest.FixtureRequest) -> Device:
    made: Device = request.param()
    return made


def test_measurement_is_whole_and_honest(device: Device, onnx_file: Path) -> None:
    measurement = device.measure(onnx_file, MeasureSpec(threads=1, batch=2, sessions=3, seconds=0.05, min_runs=4))
    latency, environment = measurement.latency, measurement.environment
    assert latency.count == len(latency.values) == 3 * environment["runs_per_session"]
    assert min(latency.values) > 0
    assert latency.p50 <= latency.p90 <= latency.p95 <= latency.p99
    assert latency.ci95[0] <= latency.p50 <= latency.ci95[1]
    assert (environment["threads"], environment["batch"], environment["sessions"]) == (1, 2, 3)
    assert len(environment["cold_start_ms"]) == 3
    assert environment["runs_per_session"] >= 4
    assert len(environment["warmup_runs"]) == 3
    assert environment["provider"].endswith("ExecutionProvider")
    assert environment["id"] == device.fingerprint()["id"]
    text = json.dumps(measurement.to_dict(), allow_nan=False)
    assert Measurement.from_dict(json.loads(text)) == measurement


def test_fingerprint_is_json_with_a_lasting_id(device: Device) -> None:
    first, second = device.fingerprint(), device.fingerprint()
    json.dumps(first, allow_nan=False)
    assert first["id"] == second["id"]
    assert len(first["id"]) == 12


@pytest.mark.parametrize("content", [None, b"", b"not ONNX", "half"])
def test_a_bad_file_is_named_in_one_line(
    device: Device, onnx_file: Path, tmp_path: Path, content: bytes | str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.onnx"
    if content == "half":
        content = onnx_file.read_bytes()[: onnx_file.stat().st_size // 2]
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        device.measure(path, QUICK)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "batch"), [("shufflenet-v2-12-int8.onnx", 1), ("pfld_landmark.onnx", 1)])
def test_any_onnx_file_can_be_timed(device: Device, shared_data: Path, name: str, batch: int) -> None:
    path = shared_data / "onnx" / name
    assert device.measure(path, QUICK).latency.count >= 6
    with pytest.raises(UserError, match=r"input '\w+': has a fixed batch, 8 cannot be run; allowed: 1$"):
        device.measure(path, MeasureSpec(threads=1, batch=8))


def make_file(path: Path, inputs: list[tuple[str, int, list[int | str]]]) -> Path:
    """A network that hands each input on."""
    values = [helper.make_tensor_value_info(*value) for value in inputs]
    outputs = [helper.make_tensor_value_info(f"{name}_out", kind, shape) for name, kind, shape in inputs]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in inputs]
    graph = helper.make_graph(nodes, "g", values, outputs)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_inputs_of_every_type(tmp_path: Path) -> None:
    kinds = ["FLOAT", "FLOAT16", "DOUBLE", "UINT8", "INT8", "INT32", "INT64", "BOOL"]
    inputs = [(k, getattr(TensorProto, k), ["n", 4]) for k in kinds] + [("TABLE", TensorProto.FLOAT, [7])]
    path = make_file(tmp_path / "m.onnx", inputs)
    arguments = open_session(path, 1).get_inputs()
    feed = make_inputs(path, arguments, 3, 0)
    assert {name: (array.dtype.name, array.shape) for name, array in feed.items()} == {
        "FLOAT": ("float32", (3, 4)),
        "FLOAT16": ("float16", (3, 4)),
        "DOUBLE": ("float64", (3, 4)),
        "UINT8": ("uint8", (3, 4)),
        "INT8": ("int8", (3, 4)),
        "INT32": ("int32", (3, 4)),
        "INT64": ("int64", (3, 4)),
        "BOOL": ("bool", (3, 4)),
        "TABLE": ("float32", (7,)),
    }
    again = make_inputs(path, arguments, 3, 0)
    assert all(np.array_equal(feed[name], again[name]) for name in feed)
    assert not np.array_equal(feed["FLOAT"], make_inputs(path, arguments, 3, 1)["FLOAT"])
    assert LocalDevice().measure(path, MeasureSpec(threads=1, batch=3, sessions=2, seconds=0.01)).latency.count >= 20


@pytest.mark.parametrize(
    ("kind", "shape", "problem"),
    [
        (TensorProto.FLOAT, ["n", 3, "height", 8], r"input 'x': dimension 2 is open \(height\)"),
        (TensorProto.STRING, ["n", 3], r"input 'x': has type tensor\(string\); allowed: tensor\(float\)"),
    ],
)
def test_inputs_that_cannot_be_made(tmp_path: Path, kind: int, shape: list[int | str], problem: str) -> None:
    path = make_file(tmp_path / "m.onnx", [("x", kind, shape)])
    with pytest.raises(UserError, match=problem):
        LocalDevice().measure(path, QUICK)


@pytest.mark.parametrize(
    "bad", [{"threads": 0}, {"batch": 0}, {"sessions": 1}, {"seconds": 0.0}, {"min_runs": 0}, {"seed": -1}]
)
def test_spec_names_the_bad_key(bad: dict[str, int]) -> None:
    with pytest.raises(UserError, match=rf"^{next(iter(bad))}: "):
        MeasureSpec(**bad)  # type: ignore[arg-type]


def test_threads_reach_the_runtime_and_nothing_is_profiled(onnx_file: Path) -> None:
    options = open_session(onnx_file, 2).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert not options.enable_profiling


def test_the_garbage_collector_is_on_again(onnx_file: Path) -> None:
    assert gc.isenabled()
    LocalDevice().measure(onnx_file, QUICK)
    assert gc.isenabled()


def test_nothing_watched_is_nothing_known() -> None:
    contention = CpuWatch().contention()
    assert contention.other_cpu_share is None


def test_watch_counts_only_its_stretches() -> None:
    watch = CpuWatch()
    for _ in range(2):
        with watch.timing():
            sum(range(1_000_000))
    share = watch.contention().other_cpu_share
    assert share is None or 0 <= share <= 1
