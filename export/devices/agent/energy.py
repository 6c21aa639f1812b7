"""Energy, if the machine counts it: RAPL for processors, NVML for NVIDIA's accelerators. Never guessed."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Dict, Optional, Tuple  # noqa: UP035 - Python 3.8

_POWERCAP = Path("/sys/class/powercap")
_NVML = "libnvidia-ml.so.1"

Counted = Dict[str, Tuple[float, Optional[float]]]  # noqa: UP006, UP045
"""For each counter its joules and, if it wraps around, at how many."""


def source(provider: str) -> str:
    """The counter for the energy that networks need on a provider."""
    return "nvml" if provider.startswith(("CUDA", "Tensorrt", "NvTensorRt")) else "rapl"


def read(provider: str) -> Counted:
    """The current counters; empty if there are none, or if they may not be read."""
    return _nvml() if source(provider) == "nvml" else _rapl()


def since(before: Counted, now: Counted) -> float | None:
    """The joules between two readings, for everything that ran meanwhile; None if nothing counts them."""
    if not before or before.keys() != now.keys():
        return None
    total = 0.0
    for name, (joules, wraps_at) in now.items():
        gained = joules - before[name][0]
        total += gained + wraps_at if gained < 0 and wraps_at is not None else gained
    return total


def _rapl() -> Counted:
    """The counter of each processor package."""
    found: Counted = {}
    for domain in _POWERCAP.glob("intel-rapl:*"):  # AMD's have this name, too
        try:
            if (domain / "name").read_text().startswith("package"):
                joules = int((domain / "energy_uj").read_text()) / 1e6
                found[domain.name] = joules, int((domain / "max_energy_range_uj").read_text()) / 1e6
        except OSError:  # only the administrator may read it
            return {}
    return found


def _nvml() -> Counted:
    """The counter of the first accelerator."""
    try:
        nvml = ctypes.CDLL(_NVML)
    except OSError:  # no driver
        return {}
    device, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)):
        return {}
    if nvml.nvmlDeviceGetTotalEnergyConsumption(
        device, ctypes.byref(millijoules)
    ):  # GPUs older than Volta have no counter
        return {}
    return {"nvml:0": (millijoules.value / 1e3, None)}
