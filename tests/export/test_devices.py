"""The contract of every device, and what is special of this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from onnx import TensorProto
from onnx_files import make_custom_file, make_endless_file, make_external_file, make_file
from phone import SERIAL, Phone, make_perf_test

from espalier.export.devices import connection
from espalier.export.devices.address import open_device
from espalier.export.devices.agent_device import ATTEMPTS, AgentDevice
from espalier.export.devices.agent_file import START
from espalier.export.devices.base import Device, MeasureSpec
from espalier.export.devices.local import LocalDevice
from espalier.export.graph_inputs import check_dims, parse_dims
from espalier.export.onnx import Exported
from espalier.nas.errors import Code, UserError
from espalier.testing.devices import QUICK, DeviceContract
from user_errors import user_error

SCRIPT = {"call_ms": 0.01, "operators_ms": {"*": 0.001}, "noise": 0.01}


@pytest.fixture(params=["local", "ssh", "adb", "replay"])
def each_device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Device]:
    """One of each kind; at the other end of adb is a stand-in for a phone."""
    if request.param == "ssh":
        address = request.getfixturevalue("board").address()
    elif request.param == "adb":
        (tmp_path / "far").mkdir()
        patch = request.getfixturevalue("monkeypatch")
        patch.setenv("PATH", f"{Phone(tmp_path / 'far').bin}{os.pathsep}{os.environ['PATH']}")
        address = f"adb://{SERIAL}?perf_test={make_perf_test(tmp_path / 'far')}"
    elif request.param == "replay":
        (tmp_path / "script.json").write_text(json.dumps(SCRIPT))
        address = f"replay:{tmp_path / 'script.json'}"
    else:
        address = "local"
    made = open_device(address, where="device")
    assert made.name == address
    yield made
    made.close()


@pytest.fixture
def device(each_device: Device) -> Device:
    return each_device


def test_files_are_timed_in_the_same_rounds(device: Device, onnx_file: Path, tmp_path: Path) -> None:
    other = make_file(tmp_path / "other.onnx", [("x", TensorProto.FLOAT, ["n", 4])])
    measured = device.measure_together([onnx_file, other, onnx_file], QUICK)
    runs = {measurement.environment["runs_per_session"] for measurement in measured}
    assert len(runs) == 1
    assert [measurement.latency.count for measurement in measured] == [2 * runs.pop()] * 3
    assert {measurement.environment["files_together"] for measurement in measured} == {3}


def test_weights_may_lie_beside_the_file(device: Device, tmp_path: Path) -> None:
    path = make_external_file(tmp_path / "big.onnx", "weights/of big.bin")
    assert device.measure(path, QUICK).latency.count >= 6
    lost = make_external_file(tmp_path / "lost.onnx", "weights/of lost.bin")
    (tmp_path / "weights/of lost.bin").unlink()
    with pytest.raises(UserError, match=r"^\S*lost\.onnx: .*weights/of lost\.bin"):
        device.measure(lost, QUICK)


def test_a_custom_operator_is_named_with_its_domain(device: Device, onnx_file: Path, tmp_path: Path) -> None:
    path = make_custom_file(tmp_path / "custom.onnx", "com.example", "Warp")
    with user_error(str(path), "unsupported", says="Warp of the domain com.example"):
        device.measure(path, QUICK)
    assert device.measure(onnx_file, QUICK).latency.count >= 6  # the next one goes on


def test_a_fixed_batch_is_named(device: Device, tmp_path: Path) -> None:
    path = make_file(tmp_path / "m.onnx", [("x", TensorProto.FLOAT, [2, 4])])
    assert device.measure(path, MeasureSpec(batch=2, sessions=2, seconds=0.02, min_runs=3)).latency.count >= 6
    with user_error(f"{path}: input 'x'", "mismatch", says="allowed: 2"):
        device.measure(path, MeasureSpec(threads=1, batch=8))


def test_a_provider_that_is_not_there_is_named(device: Device, onnx_file: Path) -> None:
    with user_error("provider", "unavailable", says="cpu"):
        device.measure(onnx_file, MeasureSpec(provider="warp"))
    assert device.measure(onnx_file, QUICK).environment["provider"] == "CPUExecutionProvider"


def this_machine(silence_s: float) -> AgentDevice:
    """This machine, given up after so long without a sign of life, and asked again at once."""
    command = [sys.executable, "-u", "-c", START]
    return AgentDevice(
        "local", lambda: connection.Connection(command, silence_s=silence_s), reads_here=True, pause_s=0.0
    )


def test_a_file_that_hangs_is_given_up(onnx_file: Path, tmp_path: Path) -> None:
    path = make_endless_file(tmp_path / "endless.onnx")
    with contextlib.closing(this_machine(silence_s=3.0)) as impatient:
        impatient.fingerprint()
        with user_error(str(path), "unavailable", says="no sign of life for 3 s"):
            impatient.measure(path, QUICK)
        assert impatient.measure(onnx_file, QUICK).latency.count >= 6


def test_a_file_that_kills_the_runtime_is_named(
    onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_file(tmp_path / "deadly.onnx", [("x", TensorProto.FLOAT, ["n", 4])])
    write = connection.Connection._write

    def killing(self: connection.Connection, content: bytes) -> None:
        write(self, content)
        if b"deadly" in content:
            os.kill(self.pid, signal.SIGSEGV)

    monkeypatch.setattr(connection.Connection, "_write", killing)
    ended = f"{ATTEMPTS} times in a row: the agent ended (killed by signal 11)"
    with contextlib.closing(this_machine(connection.SILENCE_S)) as patient:
        with user_error(str(path), "unavailable", says=ended):
            patient.measure(path, QUICK)
        assert patient.measure(onnx_file, QUICK).latency.count >= 6


@pytest.mark.parametrize("address", ["", "warp", "local:", "local:x", "ssh", "tcp://board", "adb"])
def test_addresses_of_another_form(address: str) -> None:
    with user_error("--device", "unknown", says="allowed: local, ssh://USER@HOST"):
        open_device(address, where="--device")


@pytest.mark.parametrize(("name", "batch"), [("shufflenet-v2-12-int8.onnx", 1), ("pfld_landmark.onnx", 1)])
def test_any_onnx_file_can_be_timed(device: Device, shared_data: Path, name: str, batch: int) -> None:
    path = shared_data / "onnx" / name
    assert device.measure(path, QUICK).latency.count >= 6
    with pytest.raises(UserError, match=r"input '\w+': .*allowed: 1$"):
        device.measure(path, MeasureSpec(threads=1, batch=8))


@pytest.mark.parametrize(
    ("kind", "shape", "code", "says"),
    [
        (TensorProto.FLOAT, ["n", 3, "height", 8], "missing", "height"),
        (TensorProto.STRING, ["n", 3], "unsupported", "tensor(string); allowed: tensor(float)"),
        (TensorProto.FLOAT, ["n", 0], "unsupported", "size 0"),
        (TensorProto.FLOAT, [0, 3], "unsupported", "size 0"),
        (TensorProto.FLOAT, ["n", 1 << 40], "out_of_range", "1,099,511,627,776"),
    ],
)
def test_inputs_that_cannot_be_made(tmp_path: Path, kind: int, shape: list[int | str], code: Code, says: str) -> None:
    path = make_file(tmp_path / "m.onnx", [("x", kind, shape)])
    with user_error("m.onnx" if code == "missing" else "m.onnx: input 'x'", code, says=says):
        LocalDevice().measure(path, QUICK)


def test_open_dimensions_are_given_sizes(tmp_path: Path) -> None:
    path = make_file(tmp_path / "m.onnx", [("ids", TensorProto.INT64, ["n", "sequence"]), ("z", 1, ["sequence", "n"])])
    spec = dataclasses.replace(QUICK, dims={"sequence": 128})
    assert LocalDevice().measure(path, spec).latency.count >= 6


def test_all_open_dimensions_are_named_at_once(tmp_path: Path) -> None:
    path = make_file(
        tmp_path / "m.onnx", [("ids", TensorProto.INT64, ["n", "sequence"]), ("z", 1, ["n", "sequence", 3])]
    )
    other = make_file(tmp_path / "o.onnx", [("x", 1, ["n", "h", "w"])])
    with user_error("m.onnx", "missing", says="--dim sequence=SIZE"):
        check_dims([path], {})
    with user_error("o.onnx", "missing", says="--dim h=SIZE --dim w=SIZE"):
        check_dims([path, other], {"sequence": 3})
    with user_error("dim", "unknown", nearest="sequence"):
        check_dims([path], {"sequence": 128, "sequenc": 3})
    check_dims([path, other], {"sequence": 1, "h": 2, "w": 3})


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("sequence", "invalid"),
        ("=3", "invalid"),
        ("s=0", "out_of_range"),
        ("s=-1", "out_of_range"),
        ("s=1.5", "out_of_range"),
        ("s=" + "9" * 400, "out_of_range"),
        ("s=١", "out_of_range"),
    ],
)
def test_dimensions_of_another_form(text: str, code: Code) -> None:
    with user_error("dim", code):
        parse_dims([text])


@pytest.mark.parametrize(
    "bad", [{"threads": 0}, {"batch": 0}, {"sessions": 1}, {"seconds": 0.0}, {"min_runs": 0}, {"seed": -1}]
)
def test_spec_names_the_bad_key(bad: dict[str, int]) -> None:
    with user_error(next(iter(bad)), "out_of_range"):
        MeasureSpec(**bad)  # type: ignore[arg-type]


class TestDevices(DeviceContract):
    """The contract, for all kinds of device."""

    @pytest.fixture
    def device(self, each_device: Device) -> Device:
        return each_device

    @pytest.fixture
    def onnx_file(self, exported: Exported) -> Path:
        return exported.path
