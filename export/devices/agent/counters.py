"""What the CPUs did while runs were timed, in seconds; None for what the system does not count."""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")


def read() -> dict[str, float | None]:
    """The counters now: time, CPU time of the machine, that of everybody's work, stolen by the hypervisor, of this
    process, and how often the scheduler took a core from it.
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
    """What each counter has gained since `before`."""
    now = read()
    gained: dict[str, float | None] = {}
    for name, value in now.items():
        earlier = before[name]
        gained[name] = None if value is None or earlier is None else value - earlier
    return gained


def _machine() -> tuple[float | None, float | None, float | None]:
    """All CPUs' time, the busy part, the stolen part. `guest` is already part of `user`."""
    try:
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, _STAT.read_text().split()[1:9])
    except (OSError, ValueError):  # not Linux, or a kernel that keeps this to itself
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
