"""Rounds in processes of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from espalier.export.devices.agent.errors import Refused
from espalier.export.devices.agent.fresh import in_fresh_process
from espalier.export.devices.base import MeasureSpec
from espalier.export.devices.local import LocalDevice


def request(path: Path) -> dict[str, Any]:
    return {
        "files": [str(path)],
        "threads": 1,
        "provider": None,
        "batch": 1,
        "seed": 0,
        "dims": {},
        "runs": 3,
        "milliseconds": 1.0,
        "min_runs": 1,
    }


def test_a_round_in_another_process_is_a_round(onnx_file: Path) -> None:
    found = in_fresh_process("round", request(onnx_file), lambda: None)
    assert (found["runs"], found["threads"], len(found["files"][0]["times_ms"])) == (3, 1, 3)


def test_what_it_refuses_is_refused_here(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not ONNX")
    with pytest.raises(Refused, match=r"bad\.onnx: "):
        in_fresh_process("round", request(tmp_path / "bad.onnx"), lambda: None)


def test_a_process_that_ends_without_an_answer_is_told(onnx_file: Path) -> None:
    with pytest.raises(Refused, match=r"model\.onnx: .*exit code 1"):
        in_fresh_process("no such thing", request(onnx_file), lambda: None)


def test_a_device_measures_so_where_it_is_asked_to(onnx_file: Path) -> None:
    spec = MeasureSpec(threads=1, sessions=2, seconds=0.02, min_runs=3, fresh_processes=True)
    device = LocalDevice()
    measurement = device.measure(onnx_file, spec)
    device.close()
    assert measurement.environment["fresh_processes"] is True
    assert measurement.latency.count == 2 * measurement.environment["runs_per_session"]
