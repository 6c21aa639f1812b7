"""What `quantize` returns and writes to `result.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.export.quantize.instructions import Int8Scheme
from espalier.recipes.commands.quantize.decision import Form

ONNX = "model.onnx"
RESULT = "result.json"
"""The files of the output folder."""


@dataclass(frozen=True)
class QuantizeResult:
    """All forms of a network, and which one was kept.

    Attributes:
        kept: the name of the form in `model.onnx`.
        max_drop: the largest loss of accuracy that was allowed, as a share.
        calibration_images: how many images the ranges of activations were taken from.
        int8: how int8 was written for the device.
        environment: the fingerprint of the device.
        test_images: how many images the forms were tested on.
        forms: float32 first.
        folder: with `model.onnx`, `result.json` and `README.md`.
    """

    kept: str
    max_drop: float
    calibration_images: int
    int8: Int8Scheme
    environment: Mapping[str, Any]
    test_images: int
    forms: tuple[Form, ...]
    folder: Path

    @property
    def float32(self) -> Form:
        """The network as it was given."""
        return self.forms[0]

    @property
    def best(self) -> Form:
        """The form that was kept."""
        return next(form for form in self.forms if form.name == self.kept)

    @property
    def path(self) -> Path:
        """The ONNX file of the form that was kept."""
        return self.folder / ONNX

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, as `result.json` holds them: all but the folder."""
        plain = {key: value for key, value in vars(self).items() if key != "folder"}
        return plain | {"int8": vars(self.int8), "forms": [form.to_dict() for form in self.forms]}
