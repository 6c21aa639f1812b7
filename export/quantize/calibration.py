"""Calibration: the range of every activation over some images, which gives its scale in static quantisation.

ONNX Runtime's calibrators are used, one batch at a time, so that only the activations of one batch are in memory. Two
of their defaults are changed (ONNX Runtime 1.32). Entropy searches thresholds between its 128 quantised levels and the
bins of a histogram, of which there are 128 as well: the only candidate is the whole range. Percentile makes all ranges
symmetric, which wastes half of the levels of unsigned activations after a ReLU.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from espalier.export.quantize.source import Source, Values, chosen, length

CalibrationMethod = Literal["minmax", "entropy", "percentile"]
BINS = {"minmax": 0, "entropy": 512, "percentile": 2048}
"""Bins of the histograms. The time of entropy's search is quadratic in them, and it clips more the more there are."""
LEVELS = 256
"""Quantised levels for which `entropy` chooses its threshold."""
PERCENTILE = 99.99
"""Percentage of values inside the range of `percentile`; half of the rest is clipped on each side."""
BATCH = 8
"""Images in one batch, if the file's batch is symbolic."""


def calibrate(
    prepared: Path,
    source: Source,
    images: Values,
    method: CalibrationMethod,
    *,
    symmetric: bool,
    without: Collection[str] = (),
) -> Any:
    """ONNX Runtime's `TensorsData`: the minimum and maximum of each activation of the pre-processed file.

    `minmax` uses the extremes, `percentile` clips the rarest values, `entropy` uses the threshold whose levels
    have the least Kullback-Leibler divergence from the values (Migacz, "8-bit Inference with TensorRT", GTC 2017).

    Args:
        prepared: the pre-processed file.
        source: the original file.
        images: values of the inputs, such as float32 `(n, C, H, W)`, normalised.
        method: how ranges are chosen.
        symmetric: make ranges `[-t, t]`.
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
            calibrator.collect_data(_OneBatch(source.feed(batch)))
        found = calibrator.compute_data()
    for name in without:
        found.data.pop(name, None)
    return found


def calibration_batches(source: Source, images: Values) -> Iterator[Values]:
    """The images in batches for the file; images that do not fill its fixed batch are left out."""
    size = source.batch or BATCH
    for start in range(0, length(images), size):
        batch = chosen(images, slice(start, start + size))
        if source.batch is None or length(batch) == size:
            yield batch


class _OneBatch:
    """A `CalibrationDataReader` of ONNX Runtime: returns the inputs once, then None."""

    def __init__(self, inputs: dict[str, np.ndarray]) -> None:
        self._left: dict[str, np.ndarray] | None = inputs

    def get_next(self) -> dict[str, np.ndarray] | None:
        inputs, self._left = self._left, None
        return inputs


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Suppress what ONNX Runtime's tools print and log; their errors are still raised."""
    root, quiet = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(quiet)  # without a handler, its first warning would install one permanently
    root.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
        root.removeHandler(quiet)
