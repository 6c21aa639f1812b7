"""Callers at once: what is made of an agent's answers, and the agent itself."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from scripted_agent import QUIET, ScriptedAgent

from espalier.export.devices.agent.errors import Refused
from espalier.export.devices.agent.load import under_load
from espalier.export.devices.base import MeasureSpec
from espalier.export.devices.local import LocalDevice
from espalier.export.load import measure_load
from user_errors import user_error

SPEC = MeasureSpec(threads=1, sessions=2, seconds=2.0, fresh_processes=True)


def level(callers: int, times_ms: list[float], wall_s: float) -> dict[str, Any]:
    return {"callers": callers, "times_ms": times_ms, "wall_s": wall_s, "counters": QUIET}


def test_throughput_by_hand() -> None:
    device = ScriptedAgent(
        [
            {"threads": 1, "levels": [level(1, [5.0] * 100, 0.5), level(4, [8.0] * 200, 0.5)]},
            {"threads": 1, "levels": [level(1, [5.0] * 100, 0.4), level(4, [8.0] * 200, 0.4)]},
        ]
    )
    one, four = measure_load(device, Path("m.onnx"), SPEC, callers=[1, 4], batches=[3])
    # 100 requests of 3 images in 0.5 and in 0.4 s
    assert (one.batch, one.callers, one.threads) == (3, 1, 1)
    assert one.images_per_s == pytest.approx((600 + 750) / 2)
    assert one.requests_per_s == pytest.approx(225)
    assert one.ci95 == pytest.approx((600, 750))
    assert (one.latency.p50, one.latency.p95, one.latency.p99) == (5.0, 5.0, None)
    assert (four.callers, four.images_per_s, four.latency.p50) == (4, pytest.approx(1350), 8.0)
    assert four.verdict == "stable"
    first, second = device.requests
    assert first["op"] == "load"
    assert (first["concurrency"], first["batch"], first["milliseconds"]) == ([1, 4], 3, 1000.0)
    assert first["fresh"] is True
    assert second == first


@pytest.mark.parametrize(("callers", "batches", "where"), [([1, 0], [1], "concurrency"), ([1], [0], "batch")])
def test_none_at_all(callers: list[int], batches: list[int], where: str) -> None:
    with user_error(where, "out_of_range"):
        measure_load(ScriptedAgent([]), Path("m.onnx"), SPEC, callers=callers, batches=batches)


def test_callers_run_at_the_same_time() -> None:
    # Each run waits until all three callers are in one: they would wait for ever if they took turns.
    together = threading.Barrier(3)
    found = under_load(lambda: together.wait(5.0), 3, 0.0, lambda: None)
    assert len(found["times_ms"]) == 3
    assert found["wall_s"] > 0


@pytest.mark.parametrize("good_runs", [0, 3])
def test_a_run_that_fails_is_told(good_runs: int) -> None:
    runs = iter([True] * good_runs)

    def fail() -> None:
        if not next(runs, False):
            raise Refused("m.onnx", "cannot be run")

    with pytest.raises(Refused, match=r"m\.onnx: cannot be run"):
        under_load(fail, 2, 10.0, lambda: None)


def test_a_real_network(onnx_file: Path) -> None:
    device = LocalDevice()
    spec = MeasureSpec(threads=1, sessions=2, seconds=0.02)
    loads = measure_load(device, onnx_file, spec, callers=[1, 2], batches=[1, 2])
    device.close()
    assert [(load.batch, load.callers) for load in loads] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all(load.images_per_s > 0 for load in loads)


def test_a_device_without_an_agent_is_told(onnx_file: Path) -> None:
    class Bare:
        name = "bare"

    with user_error("bare", "unsupported"):
        measure_load(Bare(), onnx_file, SPEC, callers=[1], batches=[1])  # type: ignore[arg-type]
