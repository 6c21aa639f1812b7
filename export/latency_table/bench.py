"""Times relative to an interleaved reference network: the ratio stays when the whole machine becomes faster or slower.

The speed of a shared or warm machine changes by a tenth within minutes, and a table takes minutes. Every file is
therefore timed in the same rounds as one whole network of the space, and run by run its time is divided by the
reference's. The reference also uses the caches as a network does, so that no block finds its weights in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espalier.export.devices.base import Device, MeasureSpec
from espalier.export.latency_table.contexts import Difference
from espalier.export.onnx import export_onnx
from espalier.nas.architecture import Architecture
from espalier.nas.cost.count import count
from espalier.nas.errors import UserError
from espalier.nas.files import read_json, write_json
from espalier.nas.intervals import median_interval
from espalier.nas.measurement import Measurement
from espalier.nas.scratch import ScratchFolder
from espalier.nas.space import SearchSpace

MAX_SLOWER = 1.25
"""Of the reference, against its fastest time so far. Beyond it something else uses the machine: time again."""
ATTEMPTS = 3
REFERENCE_SEED = 0
REFERENCE_DRAWS = 5
VERDICTS = ("stable", "noisy", "drifting", "contended")
"""From good to bad."""


@dataclass(frozen=True)
class Share:
    """A time relative to the reference's.

    Attributes:
        share: the median over rounds of each round's median.
        ci95: its bootstrap interval, rounds resampled.
        count: number of timed runs.
        verdict: the worst verdict of the files.
        reference_ms: the reference's median in these rounds.
    """

    share: float
    ci95: tuple[float, float]
    count: int
    verdict: str
    reference_ms: float


class Bench:
    """Times differences of networks, each once; results are written to disk immediately.

    Args:
        space: provides the reference network.
        device: runs everything.
        spec: how each file is timed.
        partial: stores the results, so that an interrupted measurement can be resumed. The caller removes it.
        label: what is measured; results in `partial` with another label are refused.

    Raises:
        UserError: `partial` belongs to another device, space or spec.
    """

    def __init__(self, space: SearchSpace, device: Device, spec: MeasureSpec, partial: Path, *, label: str) -> None:
        self.environment = device.fingerprint(spec.provider)
        self._space = space
        self._device = device
        self._spec = spec
        self._partial = partial
        self._head = {"of": label, "device": self.environment["id"], "spec": asdict(spec)}
        self._known: dict[str, Share] = {}
        if partial.exists():
            state = read_json(partial)
            if {key: state.get(key) for key in self._head} != self._head:
                problem = "belongs to another device, space or spec; delete it to start again"
                raise UserError(str(partial), problem, code="mismatch")
            self._known = {key: _share(value) for key, value in state["measured"].items()}
        partial.parent.mkdir(parents=True, exist_ok=True)
        self._folder = ScratchFolder(prefix=".latency-", dir=partial.parent)
        self._reference: Path | None = None

    @property
    def reference_ms(self) -> float:
        """The reference's time: the median over all measurements."""
        return float(np.median([share.reference_ms for share in self._known.values()]))

    def difference(self, key: str, networks: Difference) -> Share:
        """The time of a weighted sum of networks; a repeated call times it again if the reference was slow.

        Raises:
            UserError: one of them cannot be exported or run.
        """
        if self._is_open(key):
            files = []
            for index, (_, network) in enumerate(networks):
                files.append(Path(self._folder.name) / f"part{index}.onnx")
                export_onnx(network, network.input_shape, files[-1], exporter="torchscript")
            self._keep(key, self._timed(files, [weight for weight, _ in networks], self._spec))
        return self._known[key]

    def network(self, architecture: Architecture, seconds: float) -> Share:
        """The time of a stand-alone network; repeated calls are as for `difference`.

        Args:
            architecture: the network.
            seconds: its time budget, larger than a block's.

        Raises:
            UserError: it cannot be exported or run.
        """
        key = f"network {architecture.id}"
        if self._is_open(key):
            file = Path(self._folder.name) / "network.onnx"
            self._export(architecture, file)
            self._keep(key, self._timed([file], [1.0], replace(self._spec, seconds=seconds)))
        return self._known[key]

    def close(self) -> None:
        """Remove the temporary files; the results stay in `partial`."""
        self._folder.cleanup()

    def _export(self, architecture: Architecture, file: Path) -> None:
        export_onnx(self._space.build(architecture), self._space.input_shape, file, exporter="torchscript")

    def _reference_file(self) -> Path:
        if self._reference is None:
            self._reference = Path(self._folder.name) / "reference.onnx"
            self._export(reference_architecture(self._space), self._reference)
        return self._reference

    def _timed(self, files: Sequence[Path], weights: Sequence[float], spec: MeasureSpec) -> Share:
        """Repeat while the reference is slow; of several attempts the one with the fastest reference."""
        fastest = min((share.reference_ms for share in self._known.values()), default=float("inf"))
        attempts: list[Share] = []
        while len(attempts) < ATTEMPTS:
            measured = self._device.measure_together([self._reference_file(), *files], spec)
            attempts.append(_weighed(measured[0], measured[1:], weights))
            if attempts[-1].reference_ms <= MAX_SLOWER * fastest:
                break
        return min(attempts, key=lambda share: share.reference_ms)

    def _is_open(self, key: str) -> bool:
        """Whether it was not timed yet, or only while the reference took much longer than usual."""
        return key not in self._known or self._known[key].reference_ms > MAX_SLOWER * self.reference_ms

    def _keep(self, key: str, share: Share) -> None:
        """Store the time; of two times, the one with the faster reference."""
        self._known[key] = min(share, self._known.get(key, share), key=lambda found: found.reference_ms)
        write_json(self._partial, {**self._head, "measured": {k: asdict(v) for k, v in self._known.items()}})


def reference_architecture(space: SearchSpace) -> Architecture:
    """The one with the median multiply-accumulates of a few random ones; always the same one."""
    generator = torch.Generator().manual_seed(REFERENCE_SEED)
    drawn = [space.sample(generator) for _ in range(REFERENCE_DRAWS)]
    return sorted(drawn, key=lambda a: count(space.build(a), space.input_shape).macs)[REFERENCE_DRAWS // 2]


def _weighed(reference: Measurement, measured: Sequence[Measurement], weights: Sequence[float]) -> Share:
    """Run by run, the weighted sum of the files' times divided by the reference's time."""
    parts = [weight * _rounds(m) for weight, m in zip(weights, measured, strict=True)]
    shares = sum(parts[1:], start=parts[0]) / _rounds(reference)
    medians = np.median(shares, axis=1)
    verdicts = [m.verdict for m in (reference, *measured)]
    return Share(
        share=float(np.median(medians)),
        ci95=median_interval(medians),
        count=int(shares.size),
        verdict=max(verdicts, key=VERDICTS.index),
        reference_ms=reference.latency_ms,
    )


def _rounds(measurement: Measurement) -> np.ndarray:
    """Run times in milliseconds, `(rounds, runs)`."""
    values = np.asarray(measurement.latency.values)
    return values.reshape(-1, measurement.environment["runs_per_session"])


def _share(value: Mapping[str, Any]) -> Share:
    return Share(**{**value, "ci95": tuple(value["ci95"])})
