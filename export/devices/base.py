"""What every device does: say what it is, and time an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from espalier.nas.arguments import checked_arguments
from espalier.nas.measurement import Measurement


@checked_arguments
@dataclass(frozen=True)
class MeasureSpec:
    """How to time one ONNX file.

    Attributes:
        threads: threads inside one operator; None is one per physical core this process may use.
        batch: size of the first dimension of the inputs where the file leaves it open.
        sessions: fresh runtimes, at least two: what differs from one to the next is the honest uncertainty.
        seconds: time budget of all timed runs together, warm-up not counted.
        min_runs: timed runs of each session, even where they take longer than the budget.
        seed: of the generated inputs.
        provider: ONNX Runtime's execution provider, its name in full or short (`cuda`); None is CUDA's where there is
            one, else the CPU's.
        fresh_processes: each session in a process of its own, which costs 0.2 s. What differs between processes, such
            as the layout of memory, is then in the interval: medians of sessions spread by 0.8 % instead of 0.5 % for
            a network that fits a cache, and by 2 to 3 % either way for two that do not (two cores, one thread).
    """

    threads: PositiveInt | None = None
    batch: PositiveInt = 1
    sessions: Annotated[int, Field(ge=2)] = 5
    seconds: PositiveFloat = 2.0
    min_runs: PositiveInt = 10
    seed: NonNegativeInt = 0
    provider: str | None = None
    fresh_processes: bool = False

    def request(self) -> dict[str, Any]:
        """What an agent is told for one session."""
        return {
            "threads": self.threads,
            "provider": self.provider,
            "batch": self.batch,
            "seed": self.seed,
            "milliseconds": 1000 * self.seconds / self.sessions,
            "min_runs": self.min_runs,
            "fresh": self.fresh_processes,
        }


class Device(Protocol):
    """Something that runs ONNX files. Every device passes the same contract tests."""

    @property
    def name(self) -> str:
        """Its address, as recipes give it."""

    def fingerprint(self, provider: str | None = None) -> dict[str, Any]:
        """Plain JSON of what decides the timings with a provider (see `MeasureSpec`); `id` names its lasting part.

        What is not known is None.
        """

    def measure(self, onnx_file: Path, spec: MeasureSpec) -> Measurement:
        """Time the network in `onnx_file`; its `environment` holds the fingerprint and how it was timed.

        Raises:
            UserError: the file cannot be read or run, or its inputs cannot be made from `spec`.
        """

    def measure_together(self, onnx_files: Sequence[Path], spec: MeasureSpec) -> list[Measurement]:
        """Time all files with interleaved runs, in `spec.sessions` rounds with a fresh session of each file.

        Every measurement has as many runs in each round as the others (`runs_per_session` of its `environment`), and
        its `values` are in the order of the rounds.

        Raises:
            UserError: as `measure`, of any of the files.
        """

    def close(self) -> None:
        """Let go of the device; it is taken again when it is next asked."""
