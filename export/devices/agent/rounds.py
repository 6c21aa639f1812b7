"""A round: a fresh session for each ONNX file, all open at once, with interleaved timed runs."""

from __future__ import annotations

import gc
import statistics
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Sequence  # noqa: UP035 - Python 3.8

from espalier.export.devices.agent import counters, energy
from espalier.export.devices.agent.session import open_session, provider_name, runner
from espalier.export.devices.agent.system import default_threads

WARM_WINDOW_RUNS = 5
WARM_TOLERANCE = 0.05
WARM_MAX_RUNS = 100
WARM_MAX_SECONDS = 2.0

MAX_RUNS = 2000
"""More runs of a session improve neither the median nor the interval."""

RunOnce = Callable[[], Any]


class TimedFile:
    """One file during a round, with an open session that is warmed up.

    Attributes:
        run_once: runs the network once.
        times_ms: times of its timed runs.
    """

    def __init__(self, path: str, request: dict[str, Any], alive: RunOnce) -> None:
        threads, provider = request["threads"] or default_threads(), provider_name(request["provider"])
        began = time.perf_counter_ns()
        session = open_session(path, threads, provider, spin=len(request["files"]) == 1)
        self.load_ms = (time.perf_counter_ns() - began) / 1e6
        self.provider = session.get_providers()[0]
        self.run_once = runner(session, path, request)
        self.cold_start_ms = time_ms(self.run_once)
        self.warmup_runs = warm(self.run_once, alive)
        self.times_ms: list[float] = []

    def answer(self) -> dict[str, Any]:
        """The measurements, as plain JSON types."""
        names = ("load_ms", "cold_start_ms", "warmup_runs", "times_ms", "provider")
        return {name: getattr(self, name) for name in names}


def time_round(request: dict[str, Any], alive: RunOnce) -> dict[str, Any]:
    """Time `request["files"]` in alternating order, so that no file always follows the same other one.

    Args:
        request: also contains `threads` and `provider` (None for the defaults), `batch`, `seed`, `dims`, and `runs` of
            each file; None for as many as fit into `milliseconds` for each file, but at least `min_runs`.
        alive: called regularly.
    """
    files = [TimedFile(path, request, alive) for path in request["files"]]
    with no_garbage_collection():
        before, energy_before = counters.read(), energy.read(files[0].provider)
        runs = request["runs"] or runs_within([file.run_once for file in files], request)
        for run in range(runs):
            for file in files if run % 2 == 0 else files[::-1]:
                file.times_ms.append(time_ms(file.run_once))
            alive()
        counted = counters.since(before)
        energy_j = energy.since(energy_before, energy.read(files[0].provider))
    return {
        "runs": runs,
        "energy_j": energy_j,
        "energy_source": None if energy_j is None else energy.source(files[0].provider),
        "threads": request["threads"] or default_threads(),
        "counters": counted,
        "files": [file.answer() for file in files],
    }


def warm(run_once: RunOnce, alive: RunOnce) -> int:
    """Run until the median of the last `WARM_WINDOW_RUNS` runs is within `WARM_TOLERANCE` of the window before.

    Stops after `WARM_MAX_RUNS` runs or `WARM_MAX_SECONDS` at the latest.

    Returns:
        The number of runs.
    """
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < WARM_MAX_RUNS:
        times.append(time_ms(run_once))
        alive()
        if _settled(times) or time.perf_counter() - begin >= WARM_MAX_SECONDS:
            break
    return len(times)


def time_ms(run_once: RunOnce) -> float:
    """The milliseconds of one run."""
    start = time.perf_counter_ns()
    run_once()
    return (time.perf_counter_ns() - start) / 1e6


def _settled(times: list[float]) -> bool:
    if len(times) < 2 * WARM_WINDOW_RUNS:
        return False
    last = statistics.median(times[-WARM_WINDOW_RUNS:])
    before = statistics.median(times[-2 * WARM_WINDOW_RUNS : -WARM_WINDOW_RUNS])
    return abs(last - before) <= WARM_TOLERANCE * before


def runs_within(runners: Sequence[RunOnce], request: dict[str, Any]) -> int:
    """How many runs of each fit into the time budgets of all, estimated from a few of them."""
    typical_ms = sum(statistics.median([time_ms(run_once) for _ in range(3)]) for run_once in runners)
    fitting = int(request["milliseconds"] * len(runners) / typical_ms)
    return min(max(request["min_runs"], fitting), MAX_RUNS)


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Disable Python's garbage collector, after a last collection."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
