from __future__ import annotations

import numpy as np
import pytest

from export import timing
from export.timing import CpuContention, summarize, verdict, warm

QUIET = CpuContention(other_cpu_share=0.01, steal_share=0.0, involuntary_switches_per_s=2.0)


def sessions(scale: list[float], spread: float = 0.01, runs: int = 40) -> list[list[float]]:
    generator = np.random.default_rng(0)
    return [(level + spread * generator.standard_normal(runs)).tolist() for level in scale]


def test_percentiles_by_hand() -> None:
    latency = summarize([[1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]])
    assert (latency.unit, latency.count, latency.mean, latency.p50) == ("ms", 11, 6.0, 6.0)
    # position q(n - 1) = 9, 9.5 and 9.9 of 1, ..., 11
    assert (latency.p90, latency.p95, latency.p99) == pytest.approx((10.0, 10.5, 10.9))
    assert latency.stdev == pytest.approx(11**0.5)  # (11² - 1) / 12 · 11 / 10
    assert latency.values == tuple(range(1, 12))


def test_interval_over_two_sessions_by_hand() -> None:
    # Drawn with replacement: both twice (medians 2 and 6, a quarter each), or one of each (median 4).
    assert summarize([[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]]).ci95 == (2.0, 6.0)


def test_interval_equals_the_plain_bootstrap() -> None:
    data = [np.asarray(session) for session in sessions([1.0, 1.1, 1.3, 0.9], runs=7)]
    data[1] = data[1][:4]
    generator = np.random.default_rng(timing.BOOTSTRAP_SEED)
    drawn = generator.multinomial(4, [0.25] * 4, size=timing.BOOTSTRAP_RESAMPLES)
    medians = [np.median(np.concatenate([data[i] for i in range(4) for _ in range(row[i])])) for row in drawn]
    assert summarize(data).ci95 == pytest.approx(np.percentile(medians, (2.5, 97.5)))  # type: ignore[arg-type]


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
    "contention",
    [
        CpuContention(other_cpu_share=0.11),
        CpuContention(steal_share=0.03),
        CpuContention(involuntary_switches_per_s=150.0),
    ],
)
def test_contention_comes_before_drift(contention: CpuContention) -> None:
    times = sessions([1.0, 1.05, 1.1, 1.15, 1.2])
    drifting = summarize(times)
    assert verdict(drifting, times, contention) == "contended"
    assert verdict(drifting, times, CpuContention()) == "drifting"


class Clock:
    """Nanoseconds that pass only while `run` runs."""

    def __init__(self, durations_ms: list[float]) -> None:
        self.now = 0
        self.durations = iter(durations_ms)

    def perf_counter_ns(self) -> int:
        return self.now

    def run(self) -> None:
        self.now += int(next(self.durations) * 1e6)


@pytest.mark.parametrize(
    ("durations_ms", "runs"),
    [
        ([1.0] * 200, 10),  # two equal windows
        (
            [3.0] * 5 + [2.0] * 5 + [1.0] * 200,
            18,
        ),  # runs 9-13 and 14-18 are the first two windows whose medians are both 1
        ([1500.0] * 200, 2),  # two seconds are over
    ],
)
def test_warm_runs_until_stable(durations_ms: list[float], runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(durations_ms)
    monkeypatch.setattr(timing, "time", clock)
    assert warm(clock.run) == runs


def test_warm_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock([1.05**i for i in range(1000)])
    monkeypatch.setattr(timing, "time", clock)
    monkeypatch.setattr(timing, "WARM_MAX_SECONDS", 1e9)
    assert warm(clock.run) == timing.WARM_MAX_RUNS
