"""The latencies of a run's architectures: those measured, kept in its folder, and estimates of others from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from espalier.export.devices.base import MeasureSpec
from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.files import write_json
from espalier.nas.hashing import digest
from espalier.nas.measurement import Estimate, Measurement
from espalier.nas.predictor import Learner
from espalier.nas.sealed import read_sealed, seal
from espalier.predictors.learned_predictor import MIN_HISTORY

GROWTH = 1.2
"""So many times more measurements than it has learnt from before a predictor is fitted again."""
Pace = Literal["quick", "thorough"]
"""How long an architecture is timed: as a candidate of the search, or as a result."""


class Latencies:
    """Measures each architecture once at each pace, and learns from all measurements so far.

    Attributes:
        new_learner: makes a predictor of latency that has learnt nothing yet.

    Args:
        timed: times an architecture.
        device_id: gives the id of the device that it is timed on, and of all else that a network's latency depends on
            besides the architecture.
        specs: how, at each pace.
        learner: see `new_learner`.
        path: the file that keeps measurements; those of other devices, specs or networks stay in it.
    """

    def __init__(
        self,
        timed: Callable[[Architecture, MeasureSpec], Measurement],
        device_id: Callable[[], str],
        specs: dict[Pace, MeasureSpec],
        learner: Callable[[], Learner],
        path: Path,
    ) -> None:
        self._timed, self._device_id, self._specs, self._path = timed, device_id, specs, path
        self.new_learner = learner
        self._learner: Learner | None = None
        self._learnt_from = 0

    def measure(self, architecture: Architecture, pace: Pace) -> Measurement:
        """The measured latency of the stand-alone network; from the file, where it has been measured before.

        Raises:
            UserError: it cannot be exported or run.
        """
        known = self.known(pace)
        if architecture not in known:
            known[architecture] = self._timed(architecture, self._specs[pace])
            self._write()
        return known[architecture]

    def estimate(self, architecture: Architecture, pace: Pace) -> Estimate | None:
        """An estimate with an interval; None where it has been measured at this pace, or too little has been."""
        if architecture in self.known(pace) or len(self.history) < MIN_HISTORY:
            return None
        if self._learner is None or len(self.history) >= GROWTH * self._learnt_from:
            learner = self.new_learner()
            learner.fit(list(self.history.items()))
            self._learner, self._learnt_from = learner, len(self.history)
        return self._learner(architecture)

    def known(self, pace: Pace) -> dict[Architecture, Measurement]:
        """What has been measured at that pace."""
        return self._measured[self._key(pace)]

    @property
    def history(self) -> dict[Architecture, float]:
        """The median latency in ms of every architecture measured, by the slower pace where by both."""
        rows = {**self.known("quick"), **self.known("thorough")}
        return {architecture: measurement.latency_ms for architecture, measurement in rows.items()}

    def _key(self, pace: Pace) -> str:
        return digest([self._device, asdict(self._specs[pace])])

    @cached_property
    def _device(self) -> str:
        return self._device_id()

    @cached_property
    def _measured(self) -> dict[str, dict[Architecture, Measurement]]:
        cure = "delete it to measure again"
        rows: Any = read_sealed(self._path, cure).get("measurements") if self._path.exists() else {}
        try:
            kept = {key: dict(map(_entry, entries)) for key, entries in rows.items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UserError(str(self._path), f"is not a record of measurements; {cure}", code="unreadable") from error
        return {self._key("quick"): {}, self._key("thorough"): {}, **kept}

    def _write(self) -> None:
        rows = {
            key: [[dict(architecture), _without_runs(measurement)] for architecture, measurement in entries.items()]
            for key, entries in self._measured.items()
        }
        write_json(self._path, seal({"measurements": rows}))


def _entry(row: list[Any]) -> tuple[Architecture, Measurement]:
    return Architecture(row[0]), Measurement.from_dict(row[1])


def _without_runs(measurement: Measurement) -> dict[str, Any]:
    record = measurement.to_dict()
    record["latency"]["values"] = []
    return record
