"""A device that needs so many milliseconds by rule, for what is decided by latencies and must not depend on a clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx

from espalier.export.devices.base import MeasureSpec
from espalier.export.timing import summarize
from espalier.nas.errors import UserError
from espalier.nas.measurement import Measurement

MS = {"Conv": 1.0, "AveragePool": 0.25}
"""What a node costs; being called costs 0.5."""
SPREAD = 0.01
"""Of the sessions around the rule's time, to both sides, as a share."""


def rule(onnx_file: Path) -> float:
    """The milliseconds of a file."""
    return 0.5 + sum(MS.get(node.op_type, 0.0) for node in onnx.load(onnx_file).graph.node)


class ScriptedDevice:
    """Times files by a rule.

    Args:
        ms: of a file. identity: of its fingerprint.

    Attributes:
        timed: the milliseconds of each measurement, in order.
    """

    name = "scripted"

    def __init__(self, ms: Callable[[Path], float] = rule, identity: str = "scripted") -> None:
        self.timed: list[float] = []
        self._ms, self._identity = ms, identity

    def fingerprint(self, provider: str | None = None) -> dict[str, Any]:
        return {"id": self._identity, "provider": provider}

    def measure(self, onnx_file: Path, spec: MeasureSpec) -> Measurement:
        ms = self._ms(onnx_file)
        self.timed.append(ms)
        sessions = [[ms * (1 + SPREAD * (2 * i / (spec.sessions - 1) - 1))] * 3 for i in range(spec.sessions)]
        environment = {**self.fingerprint(), "threads": 1, "batch": 1, "runs_per_session": 3, "sessions": spec.sessions}
        return Measurement(summarize(sessions), "stable", environment)

    def measure_together(self, onnx_files: Sequence[Path], spec: MeasureSpec) -> list[Measurement]:
        return [self.measure(file, spec) for file in onnx_files]

    def close(self) -> None:
        """Nothing is held."""


def cannot_export_pools(onnx_file: Path) -> float:
    """The rule, but for networks with a pool that is not the stem's: they are refused."""
    if any(node.op_type == "AveragePool" for node in onnx.load(onnx_file).graph.node):
        raise UserError(str(onnx_file), "cannot be run")
    return rule(onnx_file)
