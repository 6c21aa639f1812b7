"""Comparing ONNX files: the order of the runs, the ratios and what is concluded from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import in_process_device

from espalier.export.comparison import MIN_ROUNDS, compare
from espalier.export.devices.agent import rounds
from espalier.export.devices.base import MeasureSpec
from espalier.export.devices.local import LocalDevice
from espalier.export.timing import summarize
from espalier.nas.measurement import Measurement
from user_errors import user_error

SPEC = MeasureSpec(threads=1, sessions=5)
A, B, C = Path("a.onnx"), Path("b.onnx"), Path("c.onnx")


class Scripted:
    """A device whose runs take what they are told: of each file, of each round, the times in milliseconds."""

    name = "scripted"

    def __init__(self, rounds_ms: dict[Path, list[list[float]]]) -> None:
        self._rounds_ms = rounds_ms

    def fingerprint(self) -> dict[str, Any]:
        return {"id": "scripted"}

    def measure(self, onnx_file: Path, spec: MeasureSpec) -> Measurement:
        return self.measure_together([onnx_file], spec)[0]

    def measure_together(self, onnx_files: Sequence[Path], spec: MeasureSpec) -> list[Measurement]:
        rounds_ms = [self._rounds_ms[path] for path in onnx_files]
        assert all(len(rounds) == spec.sessions for rounds in rounds_ms)
        return [Measurement(summarize(r), "stable", {"runs_per_session": len(r[0])}) for r in rounds_ms]


def test_ratios_of_the_medians_of_each_round_by_hand() -> None:
    # The machine becomes five times slower from the first round to the last: no ratio sees it.
    device = Scripted(
        {
            A: [[2.0 * slow, 2.0 * slow, 90.0] for slow in (1, 2, 3, 4, 5)],
            B: [[1.0 * slow, 1.0 * slow, 0.1] for slow in (1, 2, 3, 4, 5)],
            C: [[4.0 * slow, 4.0 * slow, 4.0] for slow in (1, 2, 3, 4, 5)],
        }
    )
    comparison = compare(device, [A, B, C], SPEC)
    half, double = comparison.others
    assert (comparison.baseline, half.file, double.file) == ("a.onnx", "b.onnx", "c.onnx")
    assert (half.ratios, half.ratio, half.ci95, half.faster) == ((0.5,) * 5, 0.5, (0.5, 0.5), True)
    assert (double.ratios, double.ratio, double.ci95, double.faster) == ((2.0,) * 5, 2.0, (2.0, 2.0), False)
    assert comparison.measurement.latency.p50 == 8.0  # the eighth of fifteen
    # Told without the rounds, the intervals of the two files meet: nothing could be said.
    assert half.measurement.latency.ci95[1] >= comparison.measurement.latency.ci95[0]
    assert json.loads(json.dumps(comparison.to_dict(), allow_nan=False))["others"][0]["ratio"] == 0.5


@pytest.mark.parametrize(
    ("ratios", "faster"),
    [
        ([0.5, 0.9, 0.99, 0.98, 0.6], True),
        ([0.5, 0.5, 0.5, 0.5, 1.01], None),  # four of five rounds say faster, one does not
        ([1.0, 1.0, 1.0, 1.0, 1.0], None),
        ([1.02, 1.5, 1.1, 1.3, 1.05], False),
        ([0.9, 0.99, 0.98, 0.97, 0.99, 0.9, 0.9, 0.98, 1.5], True),  # one round of nine does not count
    ],
)
def test_nothing_is_said_where_the_interval_contains_one(ratios: list[float], faster: bool | None) -> None:
    device = Scripted({A: [[10.0]] * len(ratios), B: [[10.0 * ratio] for ratio in ratios]})
    (other,) = compare(device, [A, B], MeasureSpec(sessions=len(ratios))).others
    assert other.faster is faster
    assert other.ratio == pytest.approx(np.median(ratios))
    if len(ratios) == MIN_ROUNDS:
        # The median of a resample is the lowest ratio when three of five draws or more are: with probability
        # 1 - .8^5 - 5 (.2) .8^4 - 10 (.04) .8^3 = 5.8 %, more than 2.5 %.
        assert other.ci95 == pytest.approx((min(ratios), max(ratios)))


def test_too_little_to_compare() -> None:
    device = Scripted({A: [[1.0]] * 5})
    with user_error("onnx_files", "too_few"):
        compare(device, [A], SPEC)
    with user_error("sessions", "out_of_range", says="5"):
        compare(device, [A, A], MeasureSpec(sessions=4))


class Bench:
    """In place of ONNX Runtime and the clock: what is done is noted, and time passes only in runs."""

    def __init__(self, run_ms: dict[str, float]) -> None:
        self.now = 0
        self.run_ms = run_ms
        self.events: list[str] = []
        self.spinning: set[bool] = set()

    def perf_counter_ns(self) -> int:
        return self.now

    def perf_counter(self) -> float:
        return self.now / 1e9

    def open_session(self, path: str, threads: int, provider: str, *, spin: bool) -> Bench:
        self.events.append(f"open {Path(path).stem}")
        self.spinning.add(spin)
        return self

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def runner(self, session: Any, path: str, request: dict[str, Any]) -> Callable[[], object]:
        def run_once() -> None:
            self.events.append(Path(path).stem)
            self.now += int(self.run_ms[Path(path).stem] * 1e6)

        return run_once

    def warm(self, run_once: Callable[[], object], alive: Callable[[], object]) -> int:
        self.events.append("warm")
        return 7


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench({"a": 2.0, "b": 1.0})
    for name, value in {"open_session": made.open_session, "runner": made.runner, "warm": made.warm}.items():
        monkeypatch.setattr(rounds, name, value)
    monkeypatch.setattr(rounds, "time", made)
    return made


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Their content does not matter on the bench."""
    made = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for path in made:
        path.touch()
    return made


def test_rounds_are_interleaved_forwards_and_backwards(bench: Bench, files: list[Path], tmp_path: Path) -> None:
    spec = MeasureSpec(threads=1, sessions=2, seconds=0.012, min_runs=1)
    a, b = in_process_device(tmp_path).measure_together(files, spec)
    # 12 ms for each of 2 files over 2 sessions, and 3 ms for one run of each: 4 runs.
    first = ["open a", "a", "warm", "open b", "b", "warm", *["a"] * 3, *["b"] * 3, *"abbaabba"]
    second = ["open b", "b", "warm", "open a", "a", "warm", *"baabbaab"]
    assert bench.events == first + second
    assert (a.latency.values, b.latency.values) == ((2.0,) * 8, (1.0,) * 8)
    assert bench.spinning == {False}
    for measurement in (a, b):
        assert measurement.environment["runs_per_session"] == 4
        assert measurement.environment["files_together"] == 2
        assert measurement.environment["warmup_runs"] == [7, 7]
    assert (a.environment["cold_start_ms"], b.environment["cold_start_ms"]) == ([2.0, 2.0], [1.0, 1.0])


def test_a_file_alone_is_run_as_ever(bench: Bench, files: list[Path], tmp_path: Path) -> None:
    measurement = in_process_device(tmp_path).measure(
        files[0], MeasureSpec(threads=1, sessions=2, seconds=0.012, min_runs=1)
    )
    assert bench.events == ["open a", "a", "warm", *["a"] * 3, *["a"] * 3, "open a", "a", "warm", *["a"] * 3]
    assert measurement.latency.values == (2.0,) * 6
    assert bench.spinning == {True}


def test_real_files_on_this_machine(onnx_file: Path) -> None:
    spec = MeasureSpec(threads=1, sessions=MIN_ROUNDS, seconds=0.02, min_runs=2)
    comparison = compare(LocalDevice(), [onnx_file, onnx_file], spec)
    assert [other.file for other in comparison.others] == [str(onnx_file)]
    for other in comparison.others:
        assert other.ci95[0] <= other.ratio <= other.ci95[1]
        assert len(other.ratios) == MIN_ROUNDS
        assert other.measurement.environment["id"] == comparison.measurement.environment["id"]
        assert other.measurement.verdict in ("stable", "noisy", "drifting", "contended")


def test_the_bad_file_is_named(onnx_file: Path, tmp_path: Path) -> None:
    with user_error("missing.onnx", "not_found"):
        compare(LocalDevice(), [onnx_file, tmp_path / "missing.onnx"], SPEC)
