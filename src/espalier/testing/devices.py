"""What every device must do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn

from espalier.export.devices.base import Device, MeasureSpec
from espalier.export.onnx import export_onnx
from espalier.nas.errors import UserError
from espalier.nas.measurement import Measurement

QUICK = MeasureSpec(threads=1, sessions=2, seconds=0.02, min_runs=3)
"""Enough runs to see that there are some."""


class DeviceContract:
    """The contract of a device. A subclass overrides the fixture `device`."""

    @pytest.fixture
    def device(self) -> Device:
        """The device to test; the test closes it."""
        raise NotImplementedError

    @pytest.fixture
    def onnx_file(self, tmp_path: Path) -> Path:
        """A small network of two layers."""
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        return export_onnx(network.eval(), (1, 8, 8), tmp_path / "model.onnx", exporter="torchscript").path

    def test_files_are_timed_in_the_same_rounds(self, device: Device, onnx_file: Path) -> None:
        measured = device.measure_together([onnx_file, onnx_file], QUICK)
        runs = {measurement.environment["runs_per_session"] for measurement in measured}
        assert len(runs) == 1
        assert [measurement.latency.count for measurement in measured] == [2 * runs.pop()] * 2

    def test_measurement_is_whole_and_honest(self, device: Device, onnx_file: Path) -> None:
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

    def test_fingerprint_is_json_with_a_lasting_id(self, device: Device) -> None:
        first, second = device.fingerprint(), device.fingerprint()
        json.dumps(first, allow_nan=False)
        assert first["id"] == second["id"]
        assert len(first["id"]) == 12

    @pytest.mark.parametrize("content", [None, b"", b"not ONNX", "half"])
    def test_a_bad_file_is_named_in_one_line(
        self,
        device: Device,
        onnx_file: Path,
        tmp_path: Path,
        content: bytes | str | None,
        capfd: pytest.CaptureFixture[str],
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

    def test_it_can_be_let_go_and_taken_again(self, device: Device, onnx_file: Path) -> None:
        before = device.measure(onnx_file, QUICK)
        device.close()
        device.close()
        after = device.measure(onnx_file, QUICK)
        assert after.environment["id"] == before.environment["id"]
        assert after.latency.count >= 6
