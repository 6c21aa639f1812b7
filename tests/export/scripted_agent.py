"""A device whose agent says what it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

QUIET = {"wall_s": 1.0, "machine_s": 2.0, "busy_s": 1.0, "steal_s": 0.0, "own_s": 1.0, "involuntary_switches": 0}
"""Counters of a machine that does nothing else."""


def a_round(energy_j: float | None = None, counters: dict[str, Any] = QUIET) -> dict[str, Any]:
    """A round of one file, four runs of a millisecond."""
    session = {"times_ms": [1.0] * 4, "load_ms": 9.0, "cold_start_ms": 2.0, "warmup_runs": 10, "provider": "P"}
    source = None if energy_j is None else "rapl"
    known = {"runs": 4, "threads": 1, "counters": counters, "energy_j": energy_j, "energy_source": source}
    return {**known, "files": [session]}


class ScriptedAgent:
    """Answers requests in the order of `answers`, and notes them."""

    name = "scripted"

    def __init__(self, answers: list[dict[str, Any]]) -> None:
        self._answers = iter(answers)
        self.requests: list[dict[str, Any]] = []

    def fingerprint(self, provider: str | None = None) -> dict[str, Any]:
        return {"id": "scripted", "provider": provider}

    def ask(self, op: str, **request: Any) -> dict[str, Any]:
        self.requests.append({"op": op, **request})
        return next(self._answers)

    def measure(self, onnx_file: Path, spec: Any) -> Any:
        raise NotImplementedError

    def measure_together(self, onnx_files: Any, spec: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to hang up."""
