"""The contract of every device, and what is special of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from onnx import TensorProto
from onnx_files import make_file

from export.devices.base import Device, MeasureSpec
from export.devices.local import LocalDevice
from nas.errors import UserError
from nas.measurement import Measurement

QUICK = MeasureSpec(threads=1, sessions=2, seconds=0.02, min_runs=3)


@pytest.fixture(params=[LocalDevice])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    made: Device = request.param()
    yield made
    made.close()


def test_measurement_is_whole_and_honest(device: Device, onnx_file: Path) -> None:
    measurement = device.measure(onnx_file, MeasureSpec(threads=1, batch=2, sessions=3, seconds=0.05, min_runs=4))
    latency, environment = measurement.latency, measurement.environment
    assert latency.count == len(latency.values) == 3 * environment["runs_per_session"]
    assert min(latency.values) > 0
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
