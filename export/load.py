"""Throughput: several concurrent callers of one session, and several images in a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from espalier.export.devices.base import Device, MeasureSpec
from espalier.export.devices.passes import passes
from espalier.export.timing import contention, summarize, verdict
from espalier.nas.errors import UserError
from espalier.nas.intervals import bootstrap_interval
from espalier.nas.measurement import Latency, Verdict


@dataclass(frozen=True)
class Load:
    """Throughput of one session with callers that send the next request as soon as they have their answer.

    Attributes:
        batch: images in a request.
        callers: number of calling threads.
        threads: threads of the runtime, shared by all callers.
        images_per_s: throughput over all sessions.
        ci95: its 95 % bootstrap interval, sessions resampled.
        latency: of the requests, as seen by the callers.
        verdict: on the latency.
    """

    batch: int
    callers: int
    threads: int
    images_per_s: float
    ci95: tuple[float, float]
    latency: Latency
    verdict: Verdict

    @property
    def requests_per_s(self) -> float:
        """Runs of the network per second."""
        return self.images_per_s / self.batch

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, by the names of the attributes."""
        return {**asdict(self), "requests_per_s": self.requests_per_s}


def measure_load(
    device: Device, onnx_file: Path, spec: MeasureSpec, *, callers: Sequence[int], batches: Sequence[int]
) -> list[Load]:
    """Measure each batch with each number of callers, one after the other in each of `spec.sessions` sessions.

    Args:
        device: runs the network.
        onnx_file: the network.
        spec: its `batch` is ignored; `seconds` is the time for each load.
        callers: numbers of callers.
        batches: images in a request.

    Raises:
        UserError: a number is below 1, or the network cannot be run.
    """
    check_load(callers, batches)
    loads = []
    for batch in batches:
        answers = passes(device, "load", [onnx_file], replace(spec, batch=batch), concurrency=list(callers))
        loads += [_load([answer["levels"][i] for answer in answers], batch, answers[0]) for i in range(len(callers))]
    return loads


def check_load(callers: Sequence[int], batches: Sequence[int]) -> None:
    """Check numbers of callers and images.

    Raises:
        UserError: a number is below 1.
    """
    for name, numbers in (("concurrency", callers), ("batch", batches)):
        for number in numbers:
            if number < 1:
                raise UserError(name, f"is {number}, must be at least 1", code="out_of_range")


def _load(levels: Sequence[dict[str, Any]], batch: int, first: dict[str, Any]) -> Load:
    times = [level["times_ms"] for level in levels]
    rates = [batch * len(level["times_ms"]) / level["wall_s"] for level in levels]
    latency = summarize(times)
    return Load(
        batch=batch,
        callers=levels[0]["callers"],
        threads=first["threads"],
        images_per_s=float(np.mean(rates)),
        ci95=bootstrap_interval(rates, np.mean),
        latency=latency,
        verdict=verdict(latency, times, contention([level["counters"] for level in levels])),
    )
