"""What the CPUs did while runs were timed: the share of other processes, of the hypervisor, of the scheduler."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from export.timing import CpuContention


@dataclass(frozen=True)
class _Counters:
    wall_s: float
    machine_s: float
    busy_s: float
    steal_s: float | None
    own_s: float
    involuntary_switches: int | None


class CpuWatch:
    """Adds up the CPU counters over the timed stretches of a measurement: `with watch.timing(): ...`."""

    def __init__(self) -> None:
        self._before: list[_Counters] = []
        self._after: list[_Counters] = []

    @contextmanager
    def timing(self) -> Iterator[None]:
        """One timed stretch."""
        before = _read_counters()
        yield
        self._after.append(_read_counters())
        self._before.append(before)

    def contention(self) -> CpuContention:
        """The shares over all stretches; None for what the system does not count, or where no time passed."""
        wall, machine, busy, steal, own, switches = (self._total(field.name) for field in fields(_Counters))
        if not wall or not machine or busy is None or own is None:
            return CpuContention()
        return CpuContention(
            # The system counts in ticks of 10 ms, so that the difference of a short stretch can fall below zero.
            other_cpu_share=max(0.0, (busy - own) / machine),
            steal_share=None if steal is None else steal / machine,
            involuntary_switches_per_s=None if switches is None else switches / wall,
        )

    def _total(self, name: str) -> float | None:
        pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(self._after, self._before, strict=True)]
        return None if any(after is None for after, _ in pairs) else sum(after - before for after, before in pairs)


def _read_counters() -> _Counters:
    import psutil

    times = psutil.cpu_times()
    # `guest` is already part of `user`, and `steal` is reported apart.
    busy = sum(getattr(times, part, 0.0) for part in ("user", "nice", "system", "irq", "softirq"))
    idle = times.idle + getattr(times, "iowait", 0.0)
    steal = getattr(times, "steal", None)
    own = psutil.Process().cpu_times()
    try:
        switches = psutil.Process().num_ctx_switches().involuntary if os.name == "posix" else None
    except NotImplementedError:  # a kernel without the counter
        switches = None
    return _Counters(
        wall_s=time.perf_counter(),
        machine_s=busy + idle + (steal or 0.0),
        busy_s=busy,
        steal_s=steal,
        own_s=own.user + own.system,
        involuntary_switches=switches,
    )
