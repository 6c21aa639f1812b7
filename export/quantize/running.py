"""Outputs of an ONNX file for images, whatever batch it takes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from espalier.export.errors import ExportError, reason
from espalier.export.parity import ROUNDING_ULPS
from espalier.export.quantize.source import Source

BATCH = 100
"""Images in a run where the file leaves the batch open."""


def outputs(
    path: Path, source: Source, batches: Iterable[np.ndarray], provider: str = "CPUExecutionProvider"
) -> np.ndarray:
    """The first output of the file for all images, `(n, ...)` as float32.

    Args:
        path: the file, with the inputs and outputs of `source`.
        batches: float32 `(b, C, H, W)`, normalised; where the file's batch is fixed, b is that or less.
        provider: computes, where ONNX Runtime has it here; else the CPU does.

    Raises:
        ExportError: it cannot be loaded or run, in ONNX Runtime's words.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    providers = [name for name in (provider, "CPUExecutionProvider") if name in onnxruntime.get_available_providers()]
    parts = []
    try:
        session: Any = onnxruntime.InferenceSession(str(path), options, providers=list(dict.fromkeys(providers)))
        for batch in batches:
            values = session.run([source.output], {source.input: _filled(batch, source.batch)})[0]
            parts.append(np.asarray(values, dtype=np.float32)[: len(batch)])
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise ExportError(str(path), f"cannot be run ({reason(error)})") from error
    return np.concatenate(parts)


def _filled(batch: np.ndarray, size: int | None) -> np.ndarray:
    """The batch, filled up with its own images to the size of a fixed batch."""
    return np.ascontiguousarray(batch if size is None else np.resize(batch, (size, *batch.shape[1:])))


def depends_on_input(values: np.ndarray) -> bool:
    """Whether outputs `(n, ...)` move with the image by more than float32 rounds."""
    spread = float(np.ptp(values, axis=0).max(initial=0))
    return bool(spread > ROUNDING_ULPS * np.finfo(np.float32).eps * np.abs(values).max(initial=0))
