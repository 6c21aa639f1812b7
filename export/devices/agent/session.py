"""Sessions of ONNX Runtime, on the requested provider and no other."""

from __future__ import annotations

import os
from typing import Any, Callable  # noqa: UP035 - Python 3.8

from espalier.export.devices.agent.errors import Refused, first_line, not_loaded
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
        problem = f"cannot be imported on the device ({first_line(error)})"
        raise Refused("onnxruntime", problem, code="unavailable") from error
    return onnxruntime


def provider_name(asked: str | None) -> str:
    """The full name of the requested provider, which may be short (`cuda`); by default CUDA if available, else CPU.

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
    problem = f"ONNX Runtime has no {asked!r} on this device"
    raise Refused("provider", problem, allowed=short, given=asked.lower(), code="unavailable")


def open_session(
    onnx_file: str,
    threads: int,
    provider: str,
    *,
    spin: bool = True,
    profile_to: str | None = None,
    optimized_to: str | None = None,
) -> Any:
    """A fresh, silent `InferenceSession` that runs operators one after the other.

    Args:
        onnx_file: the network.
        threads: threads for each operator.
        provider: full name.
        spin: let threads wait actively for the next run, which saves waking them; disabled if another session runs in
            between.
        profile_to: write ONNX Runtime's profile to a path that starts like this; slows every run down.
        optimized_to: write the optimised network to this path, with its weights in a separate file.

    Raises:
        Refused: the file is missing, or ONNX Runtime cannot load it, or not on this provider.
    """
    onnxruntime = runtime()
    if not os.path.isfile(onnx_file):  # noqa: PTH113 - a string is what the session takes
        raise Refused(onnx_file, "no such file", code="not_found")
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
        raise not_loaded(onnx_file, first_line(error)) from error
    got = session.get_providers()[0]
    if got != provider:
        problem = f"{provider} cannot run it, and {got} would have been used instead"
        raise Refused(onnx_file, problem, code="unsupported")
    return session


def runner(session: Any, onnx_file: str, request: dict[str, Any]) -> Callable[[], Any]:
    """A function that runs the network once on inputs in memory and computes all outputs.

    Args:
        session: of the network.
        onnx_file: path for error messages.
        request: contains `batch`, `seed` and `dims`, from which the inputs are made.

    Raises:
        Refused: its inputs cannot be generated; raised by the function itself if the network cannot be run.
    """
    feed = make_inputs(onnx_file, session.get_inputs(), request["batch"], request["seed"], request["dims"])
    outputs = [output.name for output in session.get_outputs()]

    def run_once() -> Any:
        try:
            return session.run(outputs, feed)
        except Exception as error:
            problem = f"cannot be run with generated inputs ({first_line(error)})"
            raise Refused(onnx_file, problem, code="failed") from error

    return run_once
