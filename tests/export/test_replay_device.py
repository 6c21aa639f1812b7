"""A device out of a file: what its times must be can be worked out by hand."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnx_files import make_file

from espalier.export.devices.address import open_device
from espalier.export.devices.base import Device, MeasureSpec
from espalier.export.devices.replay import COLD_START, WARMUP_RUNS
from espalier.nas.errors import Code
from user_errors import user_error

SPEC = MeasureSpec(sessions=2, seconds=0.1, min_runs=3)


def replay(tmp_path: Path, **script: Any) -> Device:
    path = tmp_path / "script.json"
    path.write_text(json.dumps(script))
    return open_device(f"replay:{path}", where="device")


@pytest.fixture
def identities(tmp_path: Path) -> Path:
    """A network of three nodes."""
    return make_file(tmp_path / "m.onnx", [(name, TensorProto.FLOAT, ["n", 4]) for name in "abc"])


def test_times_by_rule(tmp_path: Path, identities: Path) -> None:
    device = replay(tmp_path, call_ms=1.0, operators_ms={"Identity": 2.0, "*": 50.0})
    assert set(device.measure(identities, SPEC).latency.values) == {1.0 + 3 * 2.0}
    assert set(device.measure(identities, MeasureSpec(sessions=2, batch=5)).latency.values) == {1.0 + 5 * 3 * 2.0}
    other = replay(tmp_path, operators_ms={"Conv": 2.0, "*": 50.0})
    assert set(other.measure(identities, SPEC).latency.values) == {150.0}


def test_runs_fill_the_time(tmp_path: Path, identities: Path) -> None:
    measurement = replay(tmp_path, call_ms=2.0).measure(identities, SPEC)
    assert measurement.environment["runs_per_session"] == 25  # 100 ms in 2 sessions, 2 ms a run
    assert measurement.environment["cold_start_ms"] == [COLD_START * 2.0] * 2


def test_the_clock_drifts_as_it_runs(tmp_path: Path, identities: Path) -> None:
    measurement = replay(tmp_path, call_ms=100.0, drift_per_s=0.5).measure(identities, SPEC)
    clock, expected = 0.0, []
    for _ in range(2):
        for kind in ["cold"] + ["warm"] * WARMUP_RUNS + ["timed"] * 3:
            taken = 100.0 * (COLD_START if kind == "cold" else 1.0) * (1 + 0.5 * clock / 1000)
            clock += taken
            if kind == "timed":
                expected.append(taken)
    assert measurement.latency.values == pytest.approx(expected, rel=1e-12)


def test_recorded_sessions_come_again(tmp_path: Path, identities: Path) -> None:
    recorded = {"latency": {"values": [1.0, 1.5, 2.0, 2.5], "unit": "ms"}, "environment": {"runs_per_session": 2}}
    sha256 = hashlib.sha256(identities.read_bytes()).hexdigest()
    device = replay(tmp_path, measured={sha256: recorded}, fingerprint={"id": "0123456789ab", "cpu_model": "A55"})
    spec = MeasureSpec(sessions=3, seconds=0.001, min_runs=2)
    measurement = device.measure(identities, spec)
    assert measurement.latency.values == (1.0, 1.5, 2.0, 2.5, 1.0, 1.5)
    assert measurement.environment["id"] == "0123456789ab"
    assert measurement.environment["replay"] == "script.json"  # nobody takes it for a device
    other = make_file(tmp_path / "other.onnx", [("x", TensorProto.FLOAT, ["n", 4])])
    with user_error("other.onnx", "not_found", says="script.json"):
        device.measure(other, spec)


def test_noise_is_that_of_the_file(tmp_path: Path, identities: Path) -> None:
    script = {"call_ms": 1.0, "noise": 0.1}
    here = replay(tmp_path, **script).measure(identities, SPEC).latency.values
    assert np.std(np.log(here)) == pytest.approx(0.1, rel=0.3)
    there = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import sys, json; from pathlib import Path; from espalier.export.devices.address import open_device;"
            "from espalier.export.devices.base import MeasureSpec; device = open_device(sys.argv[1], where='');"
            "spec = MeasureSpec(sessions=2, seconds=0.1, min_runs=3);"
            "print(json.dumps(device.measure(Path(sys.argv[2]), spec).latency.values))",
            *(f"replay:{tmp_path / 'script.json'}", str(identities)),
        ],
        check=True,
        capture_output=True,
    )
    assert tuple(json.loads(there.stdout)) == here


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ("[]", "unreadable", "script.json"),
        ("{", "unreadable", "script.json"),
        ('{"call_ms": -1}', "unreadable", "call_ms"),
        ('{"calls": 1}', "unreadable", "calls"),
        ('{"measured": {"a": {"latency": {"values": []}}}}', "unreadable", "measured.a.latency.values"),
        (None, "not_found", "script.json"),
    ],
)
def test_a_file_of_another_shape_is_one_line(tmp_path: Path, content: str | None, code: Code, says: str) -> None:
    path = tmp_path / "script.json"
    if content is not None:
        path.write_text(content)
    with user_error("device", code, says=says):
        open_device(f"replay:{path}", where="device")
