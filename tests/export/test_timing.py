from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from scripted_agent import QUIET as QUIET_COUNTERS
from scripted_agent import ScriptedAgent, a_round

from espalier.export import timing
from espalier.export.devices.agent_device import AgentDevice
from espalier.export.devices.base import MeasureSpec
from espalier.export.timing import CpuContention, contention, summarize, verdict

QUIET = CpuContention(other_cpu_share=0.01, steal_share=0.0, involuntary_switches_per_s=2.0)


def sessions(scale: list[float], spread: float = 0.01, runs: int = 40) -> list[list[float]]:
    generator = np.random.default_rng(0)
    return [(level + spread * generator.standard_normal(runs)).tolist() for level in scale]


def test_percentiles_by_hand() -> None:
    latency = summarize([[1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]])
    assert (latency.unit, latency.count, latency.mean, latency.p50) == ("ms", 11, 6.0, 6.0)
    assert (latency.p90, latency.p95, latency.p99) == (None, None, None)
    assert latency.stdev == pytest.approx(11**0.5)  # (11² - 1) / 12 · 11 / 10
    assert latency.values == tuple(range(1, 12))


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        # position q(n - 1) of 0, ..., n - 1
        (98, (None, None, None)),
        (100, (0.9 * 99, None, None)),
        (200, (0.9 * 199, 0.95 * 199, None)),
        (998, (0.9 * 997, 0.95 * 997, None)),
        (1000, (0.9 * 999, 0.95 * 999, 0.99 * 999)),
    ],
)
def test_a_percentile_is_told_where_ten_runs_lie_beyond_it(count: int, expected: tuple[float | None, ...]) -> None:
    runs = [float(run) for run in range(count)]
    latency = summarize([runs[: count // 2], runs[count // 2 :]])
    assert (latency.p90, latency.p95, latency.p99) == pytest.approx(expected)


def test_interval_over_two_sessions_by_hand() -> None:
    # Drawn with replacement: both twice (medians 2 and 6, a quarter each), or one of each (median 4).
    assert summarize([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]]).ci95 == (2.0, 6.0)


@pytest.mark.parametrize(
    ("sessions", "tail"),
    [(5, 0.00095), (10, 0.0086), (1000, 0.0248)],  # Phi(-1.1180 * 2.7764), Phi(-1.0541 * 2.2622), nearly Phi(-1.96)
)
def test_the_interval_of_few_sessions_is_expanded(sessions: int, tail: float) -> None:
    assert timing._tail(sessions) == pytest.approx(tail, rel=0.02)


def test_interval_equals_the_plain_bootstrap_of_expanded_percentiles() -> None:
    data = [np.asarray(session) for session in sessions([1.0, 1.1, 1.3, 0.9], runs=7)]
    data[1] = data[1][:4]
    generator = np.random.default_rng(timing.BOOTSTRAP_SEED)
    drawn = generator.multinomial(4, [0.25] * 4, size=timing.BOOTSTRAP_RESAMPLES)
    medians = [np.median(np.concatenate([data[i] for i in range(4) for _ in range(row[i])])) for row in drawn]
    assert summarize(data).ci95 == pytest.approx(np.quantile(medians, (timing._tail(4), 1 - timing._tail(4))))  # type: ignore[arg-type]


def test_one_session_gives_no_interval() -> None:
    with pytest.raises(ValueError, match="two sessions"):
        summarize([[1.0, 2.0]])
    with pytest.raises(ValueError, match="one run each"):
        summarize([[1.0, 2.0], []])


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (sessions([1.0] * 5), "stable"),
        (sessions([1.0, 1.02, 0.99, 1.0, 1.01]), "stable"),
        (sessions([1.0, 1.05, 1.1, 1.15, 1.2]), "drifting"),
        (sessions([1.3, 1.3, 1.3, 1.0, 1.0]), "drifting"),
        (sessions([1.0, 1.04, 1.0, 1.04, 1.0]), "stable"),
        (sessions([1.0, 1.3, 1.0, 1.3, 1.0]), "noisy"),
        ([[1.0, 1.0, 1.0, 1.0, 1.5]] * 5, "noisy"),  # every fifth run: p90 is half again as long as p50
    ],
)
def test_verdict_of_the_times(times: list[list[float]], expected: str) -> None:
    assert verdict(summarize(times), times, QUIET) == expected


@pytest.mark.parametrize(
    "others",
    [
        CpuContention(other_cpu_share=0.11),
        CpuContention(steal_share=0.03),
        CpuContention(involuntary_switches_per_s=150.0),
    ],
)
def test_contention_comes_before_drift(others: CpuContention) -> None:
    times = sessions([1.0, 1.05, 1.1, 1.15, 1.2])
    drifting = summarize(times)
    assert verdict(drifting, times, others) == "contended"
    assert verdict(drifting, times, CpuContention()) == "drifting"


def test_shares_of_the_counters_by_hand() -> None:
    counted = {"wall_s": 2.0, "machine_s": 4.0, "busy_s": 3.0, "steal_s": 0.5, "own_s": 2.0, "involuntary_switches": 30}
    found = contention([counted, counted])
    assert found == CpuContention(other_cpu_share=0.25, steal_share=0.125, involuntary_switches_per_s=15.0)
    found = contention([counted, counted | {"steal_s": None, "busy_s": None}])
    assert found == CpuContention(involuntary_switches_per_s=15.0)
    assert contention([counted | {"own_s": 3.5}]).other_cpu_share == 0.0  # ticks of 10 ms
    assert contention([dict.fromkeys(counted, 0.0)]) == CpuContention()


@pytest.mark.parametrize(("busy_s", "expected"), [(1.1, "stable"), (1.3, "contended")])
def test_what_the_counters_of_a_device_say_is_in_its_verdict(busy_s: float, expected: str, tmp_path: Path) -> None:
    # Of the machine's 2 s of CPU time the device's own process took 1 s: others took 5 % of it, or 15 %.
    (tmp_path / "m.onnx").touch()
    answers = [{"id": "scripted"}, *[a_round(counters={**QUIET_COUNTERS, "busy_s": busy_s})] * 2]
    device = AgentDevice("scripted", lambda: cast(Any, ScriptedAgent(answers)), reads_here=True)
    assert device.measure(tmp_path / "m.onnx", MeasureSpec(sessions=2)).verdict == expected
