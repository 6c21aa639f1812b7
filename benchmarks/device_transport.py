"""What a device costs that is not this machine: the same machine through ssh, and directly.

`python benchmarks/device_transport.py ssh://localhost model.onnx [rounds]`, where the address leads to this machine.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from espalier.export.devices.address import open_device
from espalier.export.devices.base import MeasureSpec
from espalier.nas.intervals import median_interval


def main(address: str, model: Path, rounds: int = 8) -> None:
    """Measure in turns, then let go of each device and take it again."""
    spec = MeasureSpec(threads=1, sessions=5, seconds=1.0)
    p50: dict[str, list[float]] = {}
    took: dict[str, list[float]] = {}
    again: dict[str, list[float]] = {}
    for number in range(rounds):
        for name in ("local", address)[:: 1 if number % 2 == 0 else -1]:
            device = open_device(name, where="address")
            again.setdefault(name, []).append(_seconds(device.fingerprint))
            took.setdefault(name, []).append(_seconds(lambda device=device: device.measure(model, spec)))
            p50.setdefault(name, []).append(device.measure(model, spec).latency.p50)
            device.close()
    for name, medians in p50.items():
        _print(f"p50, {name}", medians, "ms")
        _print(f"connecting and the first answer, {name}", again[name], "s")
        _print(f"a measurement of {spec.seconds:g} s in {spec.sessions} sessions, {name}", took[name], "s")
    _print("p50 through ssh / directly", list(np.divide(p50[address], p50["local"])), "")


def _seconds(do: object) -> float:
    began = time.perf_counter()
    do()  # type: ignore[operator]
    return time.perf_counter() - began


def _print(what: str, values: list[float], unit: str) -> None:
    low, high = median_interval(np.asarray(values))
    print(f"{what}: {np.median(values):.4g} {unit} [{low:.4g}, {high:.4g}]")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
