"""Several concurrent callers of one session, like a server that answers requests in threads."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable  # noqa: UP035 - Python 3.8

from espalier.export.devices.agent import counters
from espalier.export.devices.agent.errors import Refused
from espalier.export.devices.agent.rounds import no_garbage_collection, warm
from espalier.export.devices.agent.session import open_session, provider_name, runner
from espalier.export.devices.agent.system import default_threads

WAIT_S = 0.5
MAX_RUNS = 5000
"""Most runs of each caller."""


def time_load(request: dict[str, Any], alive: Callable[[], None]) -> dict[str, Any]:
    """Time one session of `request["files"][0]` under each number of callers in `request["concurrency"]`.

    Every caller runs the network again as soon as it has its answer, for `milliseconds`.

    Args:
        request: also contains `threads` and `provider` (None for the defaults), `batch`, `seed`, `dims`.
        alive: called regularly.
    """
    path = request["files"][0]
    threads, provider = request["threads"] or default_threads(), provider_name(request["provider"])
    session = open_session(path, threads, provider)
    run_once = runner(session, path, request)
    warm(run_once, alive)
    levels = []
    with no_garbage_collection():
        for callers in request["concurrency"]:
            before = counters.read()
            level = under_load(run_once, callers, request["milliseconds"] / 1000, alive)
            levels.append({"callers": callers, "counters": counters.since(before), **level})
    return {"threads": threads, "provider": session.get_providers()[0], "levels": levels}


def under_load(run_once: Callable[[], Any], callers: int, seconds: float, alive: Callable[[], None]) -> dict[str, Any]:
    """Run it continuously in `callers` threads: the times of all runs, and the time from first to last."""
    start = threading.Barrier(callers)
    spans: list[tuple[int, int]] = []
    failures: list[Refused] = []

    def call() -> None:
        try:
            run_once()  # the first run of a thread initialises its thread-local state
            start.wait()
            until = time.perf_counter_ns() + int(seconds * 1e9)
            for _ in range(MAX_RUNS):
                begin = time.perf_counter_ns()
                run_once()
                end = time.perf_counter_ns()
                spans.append((begin, end))
                if end >= until:
                    break
        except Refused as refused:
            failures.append(refused)
            start.abort()
        except threading.BrokenBarrierError:  # another caller failed
            return

    workers = [threading.Thread(target=call, daemon=True) for _ in range(callers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        while worker.is_alive():
            worker.join(WAIT_S)
            alive()
    if failures:
        raise failures[0]
    return {
        "times_ms": [(end - begin) / 1e6 for begin, end in sorted(spans)],
        "wall_s": (max(end for _, end in spans) - min(begin for begin, _ in spans)) / 1e9,
    }
