"""Properties of this machine that affect how fast a network runs. What cannot be read is None, never guessed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

_CPU = Path("/sys/devices/system/cpu")
_CGROUP_2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_1 = Path("/sys/fs/cgroup/cpu")
_INSTRUCTIONS = frozenset(
    {
        *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16"),
        *("asimdhp", "fphp", "asimddp", "i8mm", "bf16", "sve", "sve2"),  # Arm
    }
)
"""Instructions that decide whether lower precisions are faster."""


def fingerprint(provider: str, runtime_version: str) -> dict[str, Any]:
    """The fingerprint of this machine with ONNX Runtime's execution `provider`.

    `id` is the first 12 hexadecimal digits of the SHA-256 of all other values except the current load.
    """
    lasting = {
        "cpu_model": _cpu_model(),
        "cpu_architecture": platform.machine() or None,
        "instructions": _instructions(),
        "logical_cores": os.cpu_count(),
        "physical_cores": _physical_cores(),
        "allowed_cores": _allowed_cores(),
        "cgroup_cpu_limit": _cgroup_cpu_limit(),
        "frequency_governor": _read(_CPU / "cpu0/cpufreq/scaling_governor"),
        "memory_bytes": _memory_bytes(),
        "os": f"{platform.system()} {platform.release()}",
        "python_version": platform.python_version(),
        "onnxruntime_version": runtime_version,
        "provider": provider,
        "threads": default_threads(),
    }
    digest = hashlib.sha256(json.dumps(lasting, sort_keys=True).encode()).hexdigest()
    return {"id": digest[:12], **lasting, "load_average_1min_before": _load_average()}


def default_threads() -> int:
    """One thread per physical core, but no more than this process may use; at least one."""
    limits = (_physical_cores() or os.cpu_count(), _allowed_cores(), _cgroup_cpu_limit())
    return max(1, int(min((limit for limit in limits if limit is not None), default=1)))


def instructions_of(cpuinfo: str) -> tuple[str | None, list[str] | None]:
    """The CPU's name and its relevant instructions, from the text of `/proc/cpuinfo`."""
    flags = _entry(cpuinfo, "flags") or _entry(cpuinfo, "Features")
    return _entry(cpuinfo, "model name"), None if flags is None else sorted(_INSTRUCTIONS.intersection(flags.split()))


def _cpu_model() -> str | None:
    """From `/proc/cpuinfo`; boards give their name in the device tree instead."""
    return instructions_of(_cpuinfo())[0] or (_read(Path("/proc/device-tree/model")) or platform.processor()) or None


def _instructions() -> list[str] | None:
    return instructions_of(_cpuinfo())[1]


def _cpuinfo() -> str:
    return _read(Path("/proc/cpuinfo")) or ""


def _entry(cpuinfo: str, wanted: str) -> str | None:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == wanted:
            return value.strip()
    return None


def _physical_cores() -> int | None:
    """The number of different sets of sibling threads."""
    siblings = {_read(path) for path in _CPU.glob("cpu[0-9]*/topology/thread_siblings_list")}
    return len(siblings - {None}) or None


def _allowed_cores() -> int | None:
    """Cores of the process's affinity mask; None if the system has none (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _cgroup_cpu_limit() -> float | None:
    """CPU time the control group allows, in CPUs; None without a limit or without control groups."""
    version_2 = _read(_CGROUP_2)
    if version_2 is not None:
        quota, period = version_2.split()
    else:
        quota = _read(_CGROUP_1 / "cpu.cfs_quota_us") or "-1"
        period = _read(_CGROUP_1 / "cpu.cfs_period_us") or "1"
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows; a system without the names
        return None


def _load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip().strip("\0")
    except OSError:  # the kernel does not have this file: the value stays unknown
        return None
