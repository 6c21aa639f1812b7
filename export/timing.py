"""Statistics of run times: percentiles, an interval over sessions, a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from espalier.nas.measurement import Latency, Verdict

BOOTSTRAP_RESAMPLES = 1000
BOOTSTRAP_SEED = 0

MAX_OTHER_CPU_SHARE = 0.10
"""Share of the machine's CPU time. An idle desktop's background is below 3 %; 10 % competes for caches and clock."""
MAX_STEAL_SHARE = 0.02
"""Share of the machine's CPU time in which a virtual machine was ready but its host ran something else."""
MAX_INVOLUNTARY_SWITCHES_PER_S = 100.0
"""A thread that shares its core loses it about once per time slice of 3 to 10 ms; alone, a few times a second."""

DRIFT_SHIFT = 0.05
"""Shift of the median from the early to the late half, as a share of p50, that would change a ranking."""
DRIFT_RANK_BISERIAL = 0.5
"""Of the Mann-Whitney test: the late run is the slower (or faster) one in three of four pairs of an early and a late
run, so the shift is larger than the spread within the halves."""
DRIFT_P_VALUE = 0.01
"""Guards the two above if there are few runs."""
DRIFT_SESSION_DEVIATIONS = 3.0
"""Early and late sessions must differ by more than this many of their own standard deviations: a level that merely
jumps from session to session is noise. A steady climb over five sessions gives 4.2, a step far more."""

MAX_CI_HALF_WIDTH = 0.05
"""Half-width of ci95 as a share of p50: beyond it, two networks 10 % apart cannot be distinguished."""
MAX_P90_OVER_P50 = 1.25
"""If every tenth run is a quarter slower than the median, something else affected those runs."""

MIN_RUNS_BEYOND = 10
"""A percentile is reported only if at least so many runs exceed it: p90 from 100 runs, p95 from 200, p99 from 1,000.
The number of runs beyond the true percentile then has a standard deviation of at most a third of its mean."""


@dataclass(frozen=True)
class CpuContention:
    """What else the CPUs did while runs were timed; None if the system does not report it.

    Attributes:
        other_cpu_share: CPU time of other processes, as a share of the whole machine's.
        steal_share: CPU time the hypervisor gave to others, as a share of the whole machine's.
        involuntary_switches_per_s: how often the scheduler took the core from the timing thread.
    """

    other_cpu_share: float | None = None
    steal_share: float | None = None
    involuntary_switches_per_s: float | None = None


def contention(counters: Sequence[Mapping[str, float | None]]) -> CpuContention:
    """The shares over all rounds, from the device's counters (see `espalier.export.devices.agent.counters`).

    None for what the system does not count, or if no time passed.
    """

    def total(name: str) -> float | None:
        values = [counted[name] for counted in counters]
        return None if None in values else sum(value for value in values if value is not None)

    wall, machine, busy, own = (total(name) for name in ("wall_s", "machine_s", "busy_s", "own_s"))
    steal, switches = total("steal_s"), total("involuntary_switches")
    return CpuContention(
        # The system counts in ticks of 10 ms, so that the difference over a short time can be negative.
        other_cpu_share=max(0.0, (busy - own) / machine) if machine and busy is not None and own is not None else None,
        steal_share=steal / machine if machine and steal is not None else None,
        involuntary_switches_per_s=switches / wall if wall and switches is not None else None,
    )


def summarize(sessions_ms: Sequence[Sequence[float]]) -> Latency:
    """The statistics of all runs of two or more sessions, in milliseconds, in the order they were run.

    Percentiles interpolate linearly; those with fewer than `MIN_RUNS_BEYOND` runs beyond them are None. `ci95` is the
    expanded percentile interval (see `_tail`) of the pooled medians of `BOOTSTRAP_RESAMPLES` draws of whole sessions
    with replacement: runs of one session share its memory layout and thread placement, so only sessions count as
    independent.

    Raises:
        ValueError: fewer than two sessions (they give no interval), or a session without runs.
    """
    sessions = [np.asarray(session, dtype=np.float64) for session in sessions_ms]
    if len(sessions) < 2 or any(session.size == 0 for session in sessions):
        raise ValueError("an interval needs at least two sessions with at least one run each")
    runs = np.concatenate(sessions)
    tail = _tail(len(sessions))
    low, high = np.quantile(_bootstrap_medians(sessions), (tail, 1 - tail))
    return Latency(
        unit="ms",
        count=runs.size,
        mean=float(runs.mean()),
        stdev=float(runs.std(ddof=1)),
        p50=float(np.median(runs)),
        p90=percentile(runs, 90),
        p95=percentile(runs, 95),
        p99=percentile(runs, 99),
        ci95=(float(low), float(high)),
        values=tuple(runs.tolist()),
    )


def percentile(runs: np.ndarray, percent: int) -> float | None:
    """The percentile of `runs`, shape `(n,)`; None if fewer than `MIN_RUNS_BEYOND` of them exceed it."""
    return float(np.percentile(runs, percent)) if runs.size * (100 - percent) >= 100 * MIN_RUNS_BEYOND else None


def _tail(sessions: int) -> float:
    """The share of the resampled medians below `ci95`, and the share above it.

        Phi(-sqrt(n / (n - 1)) t), t the 97.5 % quantile of Student's distribution with n - 1 degrees of freedom

    The plain bootstrap's 2.5 % give an interval that is too narrow where n is small, since resamples spread less than
    samples by sqrt((n - 1) / n) and their spread is itself uncertain (Hesterberg, What Teachers Should Know about the
    Bootstrap, 2015). For five sessions the interval reaches nearly from the fastest to the slowest.
    """
    from scipy.stats import norm, t

    return float(norm.cdf(-((sessions / (sessions - 1)) ** 0.5) * t.ppf(0.975, sessions - 1)))


def _bootstrap_medians(sessions: list[np.ndarray]) -> np.ndarray:
    """Median of each resample, shape `(BOOTSTRAP_RESAMPLES,)`: a run counts as often as its session was drawn."""
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    count = len(sessions)
    times_drawn = generator.multinomial(count, np.full(count, 1 / count), size=BOOTSTRAP_RESAMPLES)
    # Five sessions have only 126 different resamples: each is computed once.
    resamples, of_resample = np.unique(times_drawn, axis=0, return_inverse=True)
    runs = np.concatenate(sessions)
    order = np.argsort(runs, kind="stable")
    session_of_run = np.repeat(np.arange(count), [session.size for session in sessions])[order]
    ranks = np.cumsum(resamples[:, session_of_run], axis=1)
    total = ranks[:, -1:]
    lower = np.argmax(ranks >= (total + 1) // 2, axis=1)
    upper = np.argmax(ranks >= total // 2 + 1, axis=1)
    medians: np.ndarray = (runs[order][lower] + runs[order][upper]) / 2
    return medians[of_resample.ravel()]


def verdict(latency: Latency, sessions_ms: Sequence[Sequence[float]], contention: CpuContention) -> Verdict:
    """How far `latency`, the summary of `sessions_ms`, can be trusted.

    The first of these that holds:

    - `contended`: other processes, the hypervisor or the scheduler took more than their `MAX_...` threshold;
    - `drifting`: between the first and the second half of the runs the median shifts by more than `DRIFT_SHIFT`
      of p50, and neither the spread of the runs (rank test) nor that of the sessions explains it;
    - `noisy`: `ci95` is wider than `MAX_CI_HALF_WIDTH`, or p90 is above `MAX_P90_OVER_P50` times p50;
    - `stable`.
    """
    if _exceeds(contention):
        return "contended"
    if _drifts([np.asarray(session) for session in sessions_ms]):
        return "drifting"
    half_width = (latency.ci95[1] - latency.ci95[0]) / 2
    p90 = np.percentile(latency.values, 90)  # a rough value is enough here
    if half_width > MAX_CI_HALF_WIDTH * latency.p50 or p90 > MAX_P90_OVER_P50 * latency.p50:
        return "noisy"
    return "stable"


def _exceeds(contention: CpuContention) -> bool:
    limits = (
        (contention.other_cpu_share, MAX_OTHER_CPU_SHARE),
        (contention.steal_share, MAX_STEAL_SHARE),
        (contention.involuntary_switches_per_s, MAX_INVOLUNTARY_SWITCHES_PER_S),
    )
    return any(value is not None and value > limit for value, limit in limits)


def _drifts(sessions: list[np.ndarray]) -> bool:
    from scipy.stats import mannwhitneyu

    runs = np.concatenate(sessions)
    early, late = runs[: runs.size // 2], runs[runs.size // 2 :]
    shift = abs(np.median(late) - np.median(early)) / np.median(runs)
    if shift <= DRIFT_SHIFT or not _sessions_differ(np.array([np.median(session) for session in sessions])):
        return False
    test = mannwhitneyu(late, early, alternative="two-sided")
    rank_biserial = abs(2 * test.statistic / (early.size * late.size) - 1)
    return bool(rank_biserial >= DRIFT_RANK_BISERIAL and test.pvalue < DRIFT_P_VALUE)


def _sessions_differ(medians: np.ndarray) -> bool:
    """Whether early and late sessions differ by more than their spread, which two or three sessions do not have."""
    half = medians.size // 2
    early, late = medians[:half], medians[-half:]  # without the middle one, if there is one
    if half == 1:
        return True
    squares = ((early - early.mean()) ** 2).sum() + ((late - late.mean()) ** 2).sum()
    deviation = np.sqrt(squares / (2 * half - 2))
    return bool(abs(late.mean() - early.mean()) > DRIFT_SESSION_DEVIATIONS * deviation)
