"""Whole image requests on a device: decoding, resizing, normalisation, copies and inference, and the share of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espalier.export.devices.base import Device, MeasureSpec
from espalier.export.devices.passes import passes
from espalier.export.timing import contention, summarize, verdict
from espalier.nas.errors import UserError
from espalier.nas.intervals import bootstrap_interval
from espalier.nas.measurement import Latency, Verdict

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".webp")
MAX_IMAGES = 32
"""Used from a folder: requests alternate between them, so that the result does not depend on one image's size."""


@dataclass(frozen=True)
class Step:
    """One step of the requests.

    Attributes:
        name: one of `espalier.export.devices.agent.requests.STEPS`.
        latency: its time in each request.
        share: its share of the time of all requests.
        ci95: 95 % bootstrap interval of the share, sessions resampled.
    """

    name: str
    latency: Latency
    share: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class EndToEnd:
    """Requests, timed from the encoded bytes in memory to the outputs in memory.

    Attributes:
        latency: of whole requests.
        steps: in order; their shares add up to 1.
        verdict: on `latency`.
        images: number of images used in turn.
        environment: the device's fingerprint and the settings of the measurement.
    """

    latency: Latency
    steps: tuple[Step, ...]
    verdict: Verdict
    images: int
    environment: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, by the names of the attributes."""
        return asdict(self)


def measure_end_to_end(device: Device, onnx_file: Path, images: Path, spec: MeasureSpec) -> EndToEnd:
    """Time whole requests of `spec.batch` images each, in `spec.sessions` fresh sessions.

    Args:
        device: runs the requests.
        onnx_file: the network.
        images: an image, or a folder whose first `MAX_IMAGES` images, by name, are used in turn.
        spec: how to time them.

    Raises:
        UserError: there are no images, one cannot be read, or the network does not take images.
    """
    files = image_files(images)
    answers = passes(device, "requests", [onnx_file, *files], spec)
    totals = [_total(answer["times_ms"]) for answer in answers]
    latency = summarize(totals)
    others = contention([answer["counters"] for answer in answers])
    environment = device.fingerprint(spec.provider) | vars(others) | {"threads": answers[0]["threads"]}
    environment |= {"batch": spec.batch, "sessions": spec.sessions, "fresh_processes": spec.fresh_processes}
    return EndToEnd(
        latency=latency,
        steps=tuple(_step(name, answers, totals) for name in answers[0]["times_ms"]),
        verdict=verdict(latency, totals, others),
        images=len(files),
        environment=environment,
    )


def image_files(path: Path) -> list[Path]:
    """The image itself, or the first `MAX_IMAGES` of a folder and its subfolders.

    Raises:
        UserError: there is no image.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(str(path), "no such image or folder", code="not_found")
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not found:
        raise UserError(str(path), f"contains no images ({', '.join(SUFFIXES)})", code="too_few")
    return found[:MAX_IMAGES]


def _total(times_ms: dict[str, Sequence[float]]) -> list[float]:
    """The time of each request, shape `(runs,)`."""
    return [sum(steps) for steps in zip(*times_ms.values(), strict=True)]


def _step(name: str, answers: Sequence[dict[str, Any]], totals: Sequence[Sequence[float]]) -> Step:
    """One step over all requests of all sessions; every session has the same number of requests."""
    times = [answer["times_ms"][name] for answer in answers]
    shares = [sum(own) / sum(total) for own, total in zip(times, totals, strict=True)]
    return Step(
        name=name,
        latency=summarize(times),
        share=sum(map(sum, times)) / sum(map(sum, totals)),
        ci95=bootstrap_interval(shares, np.mean),
    )
