"""This machine, through ONNX Runtime."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from export.devices.base import MeasureSpec
from export.devices.cpu_watch import CpuWatch
from export.devices.fingerprint import default_threads, local_fingerprint
from export.devices.inputs import make_inputs
from export.timing import summarize, verdict, warm
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
        environment = self.fingerprint()
        threads = spec.threads or default_threads()
        watch = CpuWatch()
        sessions_ms: list[list[float]] = []
        cold_start_ms: list[float] = []
        warmup_runs: list[int] = []
        runs = 0  # the same for all sessions: a fast one must not count for more
        for _ in range(spec.sessions):
            session = open_session(onnx_file, threads)
            run_once = _runner(session, onnx_file, spec)
            cold_start_ms.append(_time_ms(run_once))
            warmup_runs.append(warm(run_once))
            with _no_garbage_collection(), watch.timing():
                runs = runs or _runs_within(run_once, spec)
                sessions_ms.append([_time_ms(run_once) for _ in range(runs)])
        latency = summarize(sessions_ms)
        contention = watch.contention()
        environment |= asdict(contention) | {
            "provider": session.get_providers()[0],
            "threads": threads,
            "batch": spec.batch,
            "seed": spec.seed,
            "sessions": spec.sessions,
            "runs_per_session": runs,
            "warmup_runs": warmup_runs,
            "cold_start_ms": cold_start_ms,
        }
        return Measurement(latency, verdict(latency, sessions_ms, contention), environment)


def open_session(onnx_file: Path, threads: int) -> Any:
    """A fresh, silent `InferenceSession` that runs operators one after the other, each on `threads` threads.

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


def _runs_within(run_once: Callable[[], object], spec: MeasureSpec) -> int:
    """How many runs fill one session's share of the time budget, going by a few of them."""
    typical_ms = statistics.median(_time_ms(run_once) for _ in range(3))
    fitting = int(1000 * spec.seconds / spec.sessions / typical_ms)
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
