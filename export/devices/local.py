"""This machine, through ONNX Runtime."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from export.devices.base import MeasureSpec
from export.devices.cpu_watch import CpuWatch
from export.devices.fingerprint import default_threads, local_fingerprint
from export.devices.inputs import make_inputs
from export.timing import CpuContention, summarize, verdict, warm
from nas.errors import UserError
from nas.measurement import Measurement

MAX_RUNS_PER_SESSION = 2000
"""More runs make neither the median nor the interval better, only the files larger."""


class LocalDevice:
    """Times ONNX files here, one at a time: two measurements at once would contend with each other."""

    name = "local"

    def fingerprint(self) -> dict[str, Any]:
        """What decides the timings on this machine; see `local_fingerprint`."""
        return local_fingerprint(_provider())

    def measure(self, onnx_file: Path, spec: MeasureSpec) -> Measurement:
        """Time the network in `onnx_file` in `spec.sessions` fresh sessions, each warmed up until stable.

        A run is one `session.run` with inputs that are ready in memory, all outputs computed.

        Raises:
            UserError: the file is missing, not ONNX or cannot be run, or its inputs cannot be made from `spec`.
        """
        return self.measure_together([onnx_file], spec)[0]

    def measure_together(self, onnx_files: Sequence[Path], spec: MeasureSpec) -> list[Measurement]:
        """Time all files in the same rounds, `spec.sessions` of them, so that whatever slows a round slows all alike.

        A round has a fresh session of each file, all open at once. Their runs alternate forwards and backwards (A B,
        B A, A B, ...), so that no file is always the one that comes after another; so does the order in which they
        are opened, from round to round. Every file has as many runs as the others, in `spec.seconds` for each.

        Sessions push each other's weights out of the caches: the times of a file are not those it has alone. With
        several threads a session's helpers sleep between its runs here, since they would wait on another one's core.

        Returns:
            A measurement of each file, in order, its `values` round after round.

        Raises:
            UserError: a file is missing, not ONNX or cannot be run, or its inputs cannot be made from `spec`.
        """
        environment = self.fingerprint()
        threads = spec.threads or default_threads()
        watch = CpuWatch()
        files = [_Timed(path) for path in onnx_files]
        runs = 0  # the same for all sessions: a fast one must not count for more
        for position in range(spec.sessions):
            order = files if position % 2 == 0 else files[::-1]
            for file in order:
                file.open(threads, spec, spin=len(files) == 1)
            with _no_garbage_collection(), watch.timing():
                runs = runs or _runs_within([file.run_once for file in files], spec)
                for run in range(runs):
                    for file in order if run % 2 == 0 else order[::-1]:
                        file.sessions_ms[-1].append(_time_ms(file.run_once))
        contention = watch.contention()
        environment |= asdict(contention) | {
            "threads": threads,
            "batch": spec.batch,
            "seed": spec.seed,
            "sessions": spec.sessions,
            "runs_per_session": runs,
            "files_together": len(files),
        }
        return [file.measurement(environment, contention) for file in files]


class _Timed:
    """One file while it is timed: its open session and what was measured so far.

    Attributes:
        run_once: runs the open session. sessions_ms: the timed runs of each session.
    """

    run_once: Callable[[], object]

    def __init__(self, path: Path) -> None:
        self.sessions_ms: list[list[float]] = []
        self._path = path
        self._environment: dict[str, Any] = {"warmup_runs": [], "cold_start_ms": []}

    def open(self, threads: int, spec: MeasureSpec, *, spin: bool) -> None:
        """Begin a session: load the file, run it a first time and until it is warm. The one before is closed."""
        session = open_session(self._path, threads, spin=spin)
        self.run_once = _runner(session, self._path, spec)
        self._environment["provider"] = session.get_providers()[0]
        self._environment["cold_start_ms"].append(_time_ms(self.run_once))
        self._environment["warmup_runs"].append(warm(self.run_once))
        self.sessions_ms.append([])

    def measurement(self, environment: dict[str, Any], contention: CpuContention) -> Measurement:
        latency = summarize(self.sessions_ms)
        return Measurement(latency, verdict(latency, self.sessions_ms, contention), environment | self._environment)


def open_session(onnx_file: Path, threads: int, *, spin: bool = True) -> Any:
    """A fresh, silent `InferenceSession` that runs operators one after the other, each on `threads` threads.

    Args:
        spin: its threads may wait actively for the next run, which saves waking them; not where another session runs
            between two of its runs.

    Raises:
        UserError: the file is missing or ONNX Runtime cannot load it.
    """
    import onnxruntime

    if not onnx_file.is_file():
        raise UserError(str(onnx_file), "no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    if not spin:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    providers = list(dict.fromkeys((_provider(), "CPUExecutionProvider")))
    try:
        return onnxruntime.InferenceSession(str(onnx_file), options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise UserError(str(onnx_file), f"not an ONNX file that can be run ({_first_line(error)})") from error


def _provider() -> str:
    import onnxruntime

    available = onnxruntime.get_available_providers()
    return "CUDAExecutionProvider" if "CUDAExecutionProvider" in available else "CPUExecutionProvider"


def _runner(session: Any, onnx_file: Path, spec: MeasureSpec) -> Callable[[], object]:
    """A function that runs the network once, proven to work."""
    feed = make_inputs(onnx_file, session.get_inputs(), spec.batch, spec.seed)
    outputs = [output.name for output in session.get_outputs()]

    def run_once() -> object:
        try:
            return session.run(outputs, feed)
        except Exception as error:  # ONNX Runtime's errors share no base class
            raise UserError(str(onnx_file), f"cannot be run with generated inputs ({_first_line(error)})") from error

    return run_once


def _time_ms(run_once: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    run_once()
    return (time.perf_counter_ns() - start) / 1e6


def _runs_within(runners: Sequence[Callable[[], object]], spec: MeasureSpec) -> int:
    """How many runs of each fill one session's share of the time budgets of all, going by a few of them."""
    typical_ms = sum(statistics.median(_time_ms(run_once) for _ in range(3)) for run_once in runners)
    fitting = int(1000 * spec.seconds * len(runners) / spec.sessions / typical_ms)
    return min(max(spec.min_runs, fitting), MAX_RUNS_PER_SESSION)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
