"""Outputs of an ONNX file for images, whatever its batch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from espalier.export.errors import ExportError, reason
from espalier.export.parity import ROUNDING_ULPS
from espalier.export.quantize.source import Source, Values, chosen, length

BATCH = 100
"""Images in a run, if the file's batch is symbolic."""


def outputs(
    path: Path, source: Source, batches: Iterable[Values], provider: str = "CPUExecutionProvider"
) -> np.ndarray:
    """The first output of the file for all images, `(n, ...)` as float32.

    Args:
        path: the file, with the inputs and outputs of `source`.
        source: the original file.
        batches: values of the inputs, such as float32 `(b, C, H, W)`, normalised; b is at most the file's batch if that
            is fixed.
        provider: used if ONNX Runtime has it here; else the CPU is.

    Raises:
        ExportError: it cannot be loaded or run; ONNX Runtime's reason is given.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    providers = [name for name in (provider, "CPUExecutionProvider") if name in onnxruntime.get_available_providers()]
    parts = []
    try:
        session: Any = onnxruntime.InferenceSession(str(path), options, providers=list(dict.fromkeys(providers)))
        for batch in batches:
            values = session.run([source.output], source.feed(_padded(batch, source.batch)))[0]
            parts.append(np.asarray(values, dtype=np.float32)[: length(batch)])
    except Exception as error:  # ONNX Runtime's errors share no base class
        raise ExportError(str(path), f"cannot be run ({reason(error)})") from error
    return np.concatenate(parts)


def _padded(batch: Values, size: int | None) -> Values:
    """The batch, padded with its own images to the size of a fixed batch."""
    return batch if size is None else chosen(batch, np.arange(size) % length(batch))


def depends_on_input(values: np.ndarray) -> bool:
    """Whether outputs `(n, ...)` vary with the image by more than float32 rounding."""
    spread = float(np.ptp(values, axis=0).max(initial=0))
    return bool(spread > ROUNDING_ULPS * np.finfo(np.float32).eps * np.abs(values).max(initial=0))
