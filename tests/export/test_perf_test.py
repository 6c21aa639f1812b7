"""Devices without Python: onnxruntime_perf_test through adb and ssh, with a stand-in for the program and for adb."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from board import Board
from onnx import TensorProto
from onnx_files import make_file
from phone import SERIAL, Phone, make_perf_test

from espalier.export.devices.adb import phones
from espalier.export.devices.address import open_device
from espalier.export.devices.agent.errors import Refused
from espalier.export.devices.agent_device import AgentDevice
from espalier.export.devices.base import Device, MeasureSpec
from espalier.export.devices.perf_test import RESULTS, WARMUP_RUNS, _read
from espalier.export.devices.shell import Ran
from user_errors import user_error

QUICK = MeasureSpec(threads=1, sessions=2, seconds=0.02, min_runs=3)


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    made = Phone(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}{os.pathsep}{os.environ['PATH']}")
    return made


@pytest.fixture
def device(phone: Phone, tmp_path: Path) -> Iterator[Device]:
    program = make_perf_test(tmp_path)
    made = open_device(f"adb://{SERIAL}?perf_test={program}", where="device")
    yield made
    made.close()
    assert list(phone.folder.iterdir()) == []


def said(*words: str, times: list[float]) -> Ran:
    rows = [f"model,{seconds},1000,50,{run}" for run, seconds in enumerate([9.0] * WARMUP_RUNS + times)]
    return Ran(0, [*words, "", RESULTS, *rows], [])


def test_what_the_program_says_is_read() -> None:
    """The lines are those of its documentation."""
    words = (
        "Setting intra_op_num_threads to 1",
        "Session creation time cost: 0.512 s",
        "First inference time cost: 12 ms",
        "Total inference time cost: 5.88053 s",
    )
    assert _read("m.onnx", said(*words, times=[0.25, 5e-05])) == {
        "load_ms": 512.0,
        "cold_start_ms": 12.0,
        "times_ms": [250.0, 0.05],
    }
    with pytest.raises(Refused, match="onnxruntime_perf_test"):
        _read("m.onnx", said(*words[:1], times=[0.25]))


def test_every_session_is_a_process_and_leaves_nothing(device: Device, phone: Phone, tmp_path: Path) -> None:
    path = make_file(tmp_path / "it's; rm -rf $HOME.onnx", [("x", TensorProto.FLOAT, ["a b'c", 4])])
    measurement = device.measure(path, MeasureSpec(threads=1, sessions=2, seconds=0.02, min_runs=3, batch=3))
    assert measurement.environment["warmup_runs"] == [WARMUP_RUNS + 1] * 2
    assert measurement.environment["timed_by"] == "onnxruntime_perf_test"
    assert measurement.environment["onnxruntime_version"] is None  # the program does not say
    assert measurement.environment["other_cpu_share"] is None
    (folder,) = phone.folder.iterdir()
    assert folder.name.startswith("espalier-perf-")
    assert sorted(one.suffix for one in folder.rglob("*") if one.is_file()) == ["", ".onnx"]


def test_a_phone_that_comes_back_has_the_files_still(
    phone: Phone, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = open_device(f"adb://{SERIAL}?perf_test={make_perf_test(tmp_path)}", where="device")
    assert isinstance(device, AgentDevice)
    monkeypatch.setattr(device, "_pause_s", 0.0)
    device.fingerprint()
    again: list[float] = []

    def wait(seconds: float) -> None:
        again.append(seconds)
        phone.becomes("device")

    monkeypatch.setattr("espalier.export.devices.agent_device.time.sleep", wait)
    phone.becomes("offline")
    assert device.measure(onnx_file, QUICK).latency.count >= 6
    assert again.count(0.0) == 1  # others sleep too
    device.close()
    assert list(phone.folder.iterdir()) == []


@pytest.mark.parametrize(("state", "says"), [("offline", "offline"), ("unauthorized", "USB debugging")])
def test_phones_that_cannot_be_used(phone: Phone, state: str, says: str) -> None:
    phone.becomes(state)
    assert phones() == []
    with user_error(f"adb://{SERIAL}", "unavailable", says=says):
        open_device(f"adb://{SERIAL}", where="device").fingerprint()


def test_a_phone_that_is_not_there(phone: Phone) -> None:
    assert phones() == [SERIAL]
    with user_error("adb://other", "unavailable"):
        open_device("adb://other", where="device").fingerprint()


def test_no_adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert phones() == []
    with user_error("adb://x", "unavailable", says="adb: No such file or directory"):
        open_device("adb://x", where="device").fingerprint()


def test_no_program(phone: Phone) -> None:
    with user_error(f"adb://{SERIAL}", "unavailable", says="onnxruntime_perf_test"):
        open_device(f"adb://{SERIAL}", where="device").fingerprint()


@pytest.mark.parametrize("rest", ["", "//", "//-s", "//a b", "//a;b", "//$(id)", "x"])
def test_what_is_no_serial_number_never_reaches_adb(rest: str) -> None:
    with user_error("device", "invalid", says="adb://SERIAL"):
        open_device(f"adb:{rest}", where="device")


@pytest.mark.slow
def test_a_board_without_python(board: Board, onnx_file: Path, tmp_path: Path) -> None:
    device = open_device(board.address(perf_test=make_perf_test(tmp_path), python="none"), where="device")
    measurement = device.measure(onnx_file, QUICK)
    assert measurement.environment["timed_by"] == "onnxruntime_perf_test"
    assert measurement.latency.count == 2 * measurement.environment["runs_per_session"]
    device.close()
