"""The range of every activation over some images, by which static quantisation scales it.

ONNX Runtime's calibrators do the work, one batch at a time, so that memory holds the activations of a batch and not of
all images. Two of their defaults are not taken over (ONNX Runtime 1.32). Entropy searches thresholds between its 128
quantised levels and the bins of a histogram, of which there are 128 as well: there is one candidate, the whole range.
Percentile makes all ranges symmetric, which wastes half of the levels of unsigned activations after a ReLU.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from espalier.export.quantize.source import Source

CalibrationMethod = Literal["minmax", "entropy", "percentile"]
BINS = {"minmax": 0, "entropy": 512, "percentile": 2048}
"""Of the histograms. Entropy's search takes time in the square of them, and cuts off more the more there are."""
LEVELS = 256
"""That the threshold of `entropy` is chosen for."""
PERCENTILE = 99.99
"""Share of the values, in percent, that the range of `percentile` holds; half of the rest is cut off on each side."""
BATCH = 8
"""Images whose activations are in memory together, where the file leaves the batch open."""


def calibrate(
    prepared: Path,
    source: Source,
    images: np.ndarray,
    method: CalibrationMethod,
    *,
    symmetric: bool,
    without: Collection[str] = (),
) -> Any:
    """ONNX Runtime's `TensorsData`: the lowest and the highest number of each activation of the pre-processed file.

    `minmax` takes the extremes, `percentile` cuts the rarest values off, `entropy` takes the threshold whose levels
    have the least Kullback-Leibler divergence from the values (Migacz, "8-bit Inference with TensorRT", GTC 2017).

    Args:
        images: float32 `(n, C, H, W)`, normalised.
        symmetric: ranges are `[-t, t]`.
        without: activations to leave out.
    """
    from onnxruntime.quantization import CalibrationMethod as Method
    from onnxruntime.quantization.calibrate import create_calibrator

    options: dict[str, Any] = {"symmetric": symmetric}
    if method != "minmax":
        options["num_bins"] = BINS[method]
    if method == "entropy":
        options["num_quantized_bins"] = LEVELS
    if method == "percentile":
        options["percentile"] = PERCENTILE
    named = {"minmax": Method.MinMax, "entropy": Method.Entropy, "percentile": Method.Percentile}
    with silence():
        calibrator = create_calibrator(
            prepared,
            augmented_model_path=str(prepared.with_suffix(".augmented.onnx")),
            calibrate_method=named[method],
            extra_options=options,
        )
        if method != "minmax":
            calibrator.tensors_to_calibrate -= set(without)
        for batch in calibration_batches(source, images):
            calibrator.collect_data(_OneBatch({source.input: batch}))
        found = calibrator.compute_data()
    for name in without:
        found.data.pop(name, None)
    return found


def calibration_batches(source: Source, images: np.ndarray) -> Iterator[np.ndarray]:
    """The images in batches that the file takes; those that do not fill its fixed batch are left out."""
    size = source.batch or BATCH
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        if source.batch is None or len(batch) == size:
            yield np.ascontiguousarray(batch)


class _OneBatch:
    """What ONNX Runtime calls a `CalibrationDataReader`: inputs, then None."""

    def __init__(self, inputs: dict[str, np.ndarray]) -> None:
        self._left: dict[str, np.ndarray] | None = inputs

    def get_next(self) -> dict[str, np.ndarray] | None:
        inputs, self._left = self._left, None
        return inputs


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """What ONNX Runtime's tools print and log off for a while; their errors still come as exceptions."""
    root, quiet = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(quiet)  # without a handler, its first warning would install one for good
    root.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
        root.removeHandler(quiet)
