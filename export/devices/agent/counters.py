"""CPU time counters around timed runs, in seconds; None for what the system does not count."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")


def read() -> dict[str, float | None]:
    """The current counters.

    Wall-clock time; CPU time of the whole machine, its busy part and the part stolen by the hypervisor; CPU time of
    this process, and how many times the scheduler took a core from it.
    """
    machine, busy, steal = _machine()
    own = os.times()
    return {
        "wall_s": time.perf_counter(),
        "machine_s": machine,
        "busy_s": busy,
        "steal_s": steal,
        "own_s": own.user + own.system,
        "involuntary_switches": _involuntary_switches(),
    }


def since(before: dict[str, float | None]) -> dict[str, float | None]:
    """By how much each counter has increased since `before`."""
    now = read()
    gained: dict[str, float | None] = {}
    for name, value in now.items():
        earlier = before[name]
        gained[name] = None if value is None or earlier is None else value - earlier
    return gained


def _machine() -> tuple[float | None, float | None, float | None]:
    """Time of all CPUs, the busy part, the stolen part. `guest` is already included in `user`."""
    try:
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, _STAT.read_text().split()[1:9])
    except (OSError, ValueError):  # not Linux, or a kernel that does not expose this
        return None, None, None
    ticks = os.sysconf("SC_CLK_TCK")
    busy = user + nice + system + irq + softirq
    return (busy + idle + iowait + steal) / ticks, busy / ticks, steal / ticks


def _involuntary_switches() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
