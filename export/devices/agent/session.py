"""Sessions of ONNX Runtime, on the provider that was asked for and no other."""

from __future__ import annotations

import os
from typing import Any, Callable  # noqa: UP035 - Python 3.8

from espalier.export.devices.agent.errors import Refused, first_line, why_not_loaded
from espalier.export.devices.agent.inputs import make_inputs

SUFFIX = "ExecutionProvider"
CPU = f"CPU{SUFFIX}"


def runtime() -> Any:
    """The module onnxruntime.

    Raises:
        Refused: it is not installed here.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise Refused("onnxruntime", f"cannot be imported on the device ({first_line(error)})") from error
    return onnxruntime


def provider_name(asked: str | None) -> str:
    """The full name of a provider: of the asked one, which may be written short (`cuda`), else CUDA's or the CPU's.

    Raises:
        Refused: ONNX Runtime has no such provider here.
    """
    available = runtime().get_available_providers()
    if asked is None:
        return f"CUDA{SUFFIX}" if f"CUDA{SUFFIX}" in available else CPU
    for name in available:
        if asked.lower() in (name.lower(), name[: -len(SUFFIX)].lower()):
            return str(name)
    short = [name[: -len(SUFFIX)].lower() for name in available]
    raise Refused("provider", f"ONNX Runtime has no {asked!r} on this device", allowed=short, given=asked.lower())


def open_session(
    onnx_file: str,
    threads: int,
    provider: str,
    *,
    spin: bool = True,
    profile_to: str | None = None,
    optimized_to: str | None = None,
) -> Any:
    """A fresh, silent `InferenceSession` that runs operators one after the other, each on `threads` threads.

    Args:
        provider: full name.
        spin: its threads may wait actively for the next run, which saves waking them; not where another session runs
            between two of its runs.
        profile_to: the beginning of the path that ONNX Runtime's profile is written to; it slows every run down.
        optimized_to: the path that the optimised network is written to, its weights beside it.

    Raises:
        Refused: the file is missing, ONNX Runtime cannot load it, or not onto this provider.
    """
    onnxruntime = runtime()
    if not os.path.isfile(onnx_file):  # noqa: PTH113 - a string is what the session takes
        raise Refused(onnx_file, "no such file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = profile_to
    if optimized_to is not None:
        weights = "session.optimized_model_external_initializers"
        options.optimized_model_filepath = optimized_to
        options.add_session_config_entry(f"{weights}_file_name", "weights.bin")
        options.add_session_config_entry(f"{weights}_min_size_in_bytes", "1")
    if not spin:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        session = onnxruntime.InferenceSession(onnx_file, options, providers=list(dict.fromkeys((provider, CPU))))
    except Exception as error:
        raise Refused(onnx_file, why_not_loaded(first_line(error))) from error
    got = session.get_providers()[0]
    if got != provider:
        raise Refused(onnx_file, f"{provider} could not take it, and {got} would have run it instead")
    return session


def runner(session: Any, onnx_file: str, batch: int, seed: int) -> Callable[[], Any]:
    """A function that runs the network once, on inputs that are ready in memory, all outputs computed.

    Raises:
        Refused: its inputs cannot be made; the function itself, where the network cannot be run.
    """
    feed = make_inputs(onnx_file, session.get_inputs(), batch, seed)
    outputs = [output.name for output in session.get_outputs()]

    def run_once() -> Any:
        try:
            return session.run(outputs, feed)
        except Exception as error:
            raise Refused(onnx_file, f"cannot be run with generated inputs ({first_line(error)})") from error

    return run_once
