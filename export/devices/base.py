"""The interface of all devices: a fingerprint, and timing of ONNX files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
        threads: threads for each operator; None is one for each physical core that this process may use.
        batch: size of the first dimension of the inputs, if it is symbolic in the file.
        sessions: fresh sessions of the runtime, at least two; their differences are the measured uncertainty.
        seconds: time budget of all timed runs together, without warm-up.
        min_runs: timed runs of each session, even if they take longer than the budget.
        seed: of the generated inputs.
        provider: ONNX Runtime's execution provider, by its full or short name (`cuda`); None is CUDA if available,
            else the CPU.
        dims: sizes of symbolic dimensions besides the batch, by name, such as `{"sequence": 128}`.
        fresh_processes: run each session in a new process, which costs 0.2 s. The interval then includes differences
            between processes, such as the layout of memory: medians of sessions spread by 0.8 % instead of 0.5 % for
            a network that fits a cache, and by 2 to 3 % either way for two that do not (two cores, one thread).
    """

    threads: PositiveInt | None = None
    batch: PositiveInt = 1
    sessions: Annotated[int, Field(ge=2)] = 5
    seconds: PositiveFloat = 2.0
    min_runs: PositiveInt = 10
    seed: NonNegativeInt = 0
    provider: str | None = None
    dims: Mapping[str, PositiveInt] = field(default_factory=dict)
    fresh_processes: bool = False

    def request(self) -> dict[str, Any]:
        """The arguments of a request to an agent for one session."""
        return {
            "threads": self.threads,
            "provider": self.provider,
            "batch": self.batch,
            "seed": self.seed,
            "dims": dict(self.dims),
            "milliseconds": 1000 * self.seconds / self.sessions,
            "min_runs": self.min_runs,
            "fresh": self.fresh_processes,
        }


class Device(Protocol):
    """Something that runs ONNX files. Every device passes the same contract tests."""

    @property
    def name(self) -> str:
        """Its address, as in recipes."""

    def fingerprint(self, provider: str | None = None) -> dict[str, Any]:
        """What determines the timings with a provider (see `MeasureSpec`), as plain JSON types.

        `id` identifies everything that does not change from one moment to the next. Unknown values are None.
        """

    def measure(self, onnx_file: Path, spec: MeasureSpec) -> Measurement:
        """Time the network in `onnx_file`; `environment` contains the fingerprint and the settings of the measurement.

        Raises:
            UserError: the file cannot be read or run, or its inputs cannot be generated from `spec`.
        """

    def measure_together(self, onnx_files: Sequence[Path], spec: MeasureSpec) -> list[Measurement]:
        """Time all files with interleaved runs, in `spec.sessions` rounds with a fresh session of each file.

        Every measurement has the same number of runs in each round (`runs_per_session` of its `environment`), and its
        `values` are in the order of the rounds.

        Raises:
            UserError: as for `measure`, for any of the files.
        """

    def close(self) -> None:
        """Release the device; it is connected again when it is next used."""
