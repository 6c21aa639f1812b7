"""A batch of files on a device that changes: the clock below is scripted, and passes only while something is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from espalier.export.devices.base import MeasureSpec
from espalier.export.devices.local import LocalDevice
from espalier.export.drift import MAX_SLOWDOWN, Drift, Probe, measure_batch
from espalier.export.reference import CHANNELS, SIDE, write_reference
from espalier.export.timing import summarize
from espalier.nas.errors import UserError
from espalier.nas.measurement import Measurement, Verdict

SPEC = MeasureSpec(threads=1, sessions=2)
MS = {"reference": 2.0, "a": 5.0, "b": 1.0, "c": 7.0}
SECONDS_EACH = 10.0


class Drifting:
    """Measures for ten seconds; slower by a factor of the time in the middle of it. Every run takes as long."""

    name = "drifting"

    def __init__(
        self, slowdown: Callable[[float], float], spread: Sequence[float] = (1.0, 1.0), verdict: Verdict = "stable"
    ) -> None:
        self.now = 0.0
        self.order: list[str] = []
        self.kept: dict[str, float] = {}
        self._slowdown = slowdown
        self._spread = spread
        self._verdict = verdict

    def clock(self) -> float:
        return self.now

    def measure(self, onnx_file: Path, spec: MeasureSpec) -> Measurement:
        self.order.append(onnx_file.stem)
        if onnx_file.stem not in MS:
            raise UserError(str(onnx_file), "no such file")
        ms = MS[onnx_file.stem] * self._slowdown(self.now + SECONDS_EACH / 2)
        self.now += SECONDS_EACH
        return Measurement(summarize([[ms * one] * 100 for one in self._spread]), self._verdict, {"id": "drifting"})

    def batch(self, *names: str) -> list[Any]:
        files = [Path(f"{name}.onnx") for name in names]
        return measure_batch(self, files, SPEC, keep=self.keep, clock=self.clock)  # type: ignore[arg-type]

    def keep(self, onnx_file: Path, measurement: Measurement) -> None:
        self.kept[onnx_file.stem] = measurement.latency_ms


def test_a_linear_drift_is_divided_out_exactly() -> None:
    # A percent slower every ten seconds, against its speed in the middle of the first timing, at 5 s.
    device = Drifting(lambda at_s: 1 + 0.001 * (at_s - 5.0))
    found = device.batch("a", "b", "c")
    assert device.order == ["reference", "a", "reference", "b", "c", "reference"]
    for name, slot, measurement in zip("abc", (1, 3, 4), found, strict=True):
        assert measurement.latency.p50 == pytest.approx(MS[name], rel=1e-12)
        assert measurement.latency.ci95 == pytest.approx((MS[name], MS[name]), rel=1e-12)
        assert measurement.latency.mean == pytest.approx(MS[name], rel=1e-12)
        assert measurement.latency.p90 == pytest.approx(MS[name], rel=1e-12)
        assert measurement.latency.p99 is None
        assert measurement.latency.values == pytest.approx((MS[name],) * 200, rel=1e-12)
        assert measurement.environment["drift_factor"] == pytest.approx(1 + 0.01 * slot)
        assert measurement.environment["reference_ms"] == pytest.approx([2.0, 2.04, 2.1])
        assert measurement.environment["reference_at_s"] == [0.0, 20.0, 50.0]
        assert measurement.verdict == "stable"
    assert device.kept == pytest.approx({"a": 5.0 * 1.01, "b": 1.0 * 1.03, "c": 7.0 * 1.04})


def test_one_that_only_jitters_is_left_alone() -> None:
    # Slower by a percent at the end, but its own interval is 4 % wide.
    device = Drifting(lambda at_s: 1.0 if at_s < 20 else 1.01, spread=(0.98, 1.02))
    (measurement,) = device.batch("a")
    assert measurement.environment["drift_factor"] == 1.0
    assert measurement.latency.p50 == pytest.approx(5.0)
    assert measurement.verdict == "stable"


@pytest.mark.parametrize(
    ("slowdown", "own", "expected"),
    [
        (1 + MAX_SLOWDOWN - 0.01, "stable", "stable"),
        (1 + MAX_SLOWDOWN + 0.01, "stable", "throttled"),
        (1 + MAX_SLOWDOWN + 0.01, "noisy", "throttled"),
        (1 + MAX_SLOWDOWN + 0.01, "contended", "contended"),
        (0.5, "stable", "stable"),  # it was slower at first, and is so no more
    ],
)
def test_a_device_that_throttles_has_a_verdict_of_its_own(slowdown: float, own: Verdict, expected: Verdict) -> None:
    device = Drifting(lambda at_s: 1.0 if at_s < 20 else slowdown, verdict=own)
    (measurement,) = device.batch("a")
    assert measurement.verdict == expected


def test_the_interval_takes_in_that_of_the_reference() -> None:
    drift = Drift([Probe(0.0, 2.0, (1.9, 2.1)), Probe(10.0, 3.0, (2.8, 3.4))])
    timed = Measurement(summarize([[9.0] * 5, [11.0] * 5]), "stable", {})
    corrected = drift.corrected(timed, 10.0)
    assert corrected.latency.p50 == pytest.approx(10.0 / 1.5)
    assert corrected.latency.ci95 == pytest.approx((9.0 / 1.7, 11.0 / 1.4))


def test_a_file_that_cannot_be_timed_does_not_stop_the_others() -> None:
    device = Drifting(lambda _: 1.0)
    bad, good = device.batch("missing", "b")
    assert str(bad) == "missing.onnx: no such file"
    assert good.latency.p50 == 1.0
    assert device.order == ["reference", "missing", "reference", "b", "reference"]
    assert Drifting(lambda _: 1.0).batch() == []


def test_the_reference_is_always_the_same_and_runs(tmp_path: Path) -> None:
    first, second = write_reference(tmp_path / "1.onnx"), write_reference(tmp_path / "2.onnx")
    assert first.read_bytes() == second.read_bytes()
    session = onnxruntime.InferenceSession(str(first), providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).standard_normal((3, CHANNELS, SIDE, SIDE)).astype(np.float32)
    (output,) = session.run(None, {"input": images})
    assert output.shape == (3, CHANNELS)
    assert 0.1 < output.std() < 10


def test_a_batch_on_this_machine(onnx_file: Path, tmp_path: Path) -> None:
    spec = MeasureSpec(threads=1, sessions=2, seconds=0.02, min_runs=3)
    device = LocalDevice()
    good, bad = measure_batch(device, [onnx_file, tmp_path / "missing.onnx"], spec)
    device.close()
    assert isinstance(bad, UserError)
    assert isinstance(good, Measurement)
    assert len(good.environment["reference_ms"]) == 3
