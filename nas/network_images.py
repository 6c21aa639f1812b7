"""What a file says of the images that its network takes: the same keys in ONNX metadata and safetensors headers."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.nas.data.images import Normalisation
from espalier.nas.errors import UserError

LAYOUT = "NCHW"
"""Batch, channels, height, width: of every exported network."""
NAMES = ("classes", "names", "class_names", "labels")
"""Keys of class names: ours, and those of other tools."""


@dataclass(frozen=True)
class NetworkImages:
    """What is known of the images that a network takes.

    Attributes:
        classes: names of its outputs, in order; none where they are not known.
        normalisation: it takes `(pixels / 255 - mean) / std`; None where it is not known.
        input_shape: `(channels, height, width)` of one image; None where it is not known.
    """

    classes: tuple[str, ...] = ()
    normalisation: Normalisation | None = None
    input_shape: tuple[int, int, int] | None = None

    def to_metadata(self) -> dict[str, str]:
        """What is known as text; each value is JSON."""
        values: dict[str, Any] = {}
        if self.input_shape is not None:
            values |= {"input_shape": self.input_shape, "layout": LAYOUT}
        if self.classes:
            values["classes"] = self.classes
        if self.normalisation is not None:
            values |= {"mean": self.normalisation.mean, "std": self.normalisation.std}
        return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}

    @classmethod
    def from_metadata(cls, path: Path, text: Mapping[str, str]) -> NetworkImages:
        """What the metadata of a file says; keys that are not ours are left out.

        Args:
            path: the file.
            text: its metadata. Values are JSON; lists may also be Python literals or text with commas, and class names
                a mapping of numbers, as other tools write them.

        Raises:
            UserError: a value of ours is damaged; the key is named.
        """
        names = next((key for key in NAMES if key in text), None)
        classes = () if names is None else _names(f"{path}: {names}", text[names])
        normalisation = None
        if "mean" in text and "std" in text:
            mean, std = (_numbers(f"{path}: {key}", text[key]) for key in ("mean", "std"))
            if len(mean) != len(std) or min(std) <= 0:
                problem = "must be a number above 0 for each channel of mean"
                raise UserError(f"{path}: std", problem, code="unreadable")
            normalisation = Normalisation(mean, std)
        return cls(classes, normalisation, _shape(path, text))


def weights_metadata(path: Path) -> NetworkImages:
    """What the header of a safetensors file says.

    Raises:
        UserError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            text = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(str(path), f"cannot be read as safetensors ({error})", code="unreadable") from error
    return NetworkImages.from_metadata(path, text)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _literal(text)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if text.lstrip().startswith(("[", "{", "(")):
            return None
        return [part.strip() for part in text.split(",")]


def _names(where: str, text: str) -> tuple[str, ...]:
    value = _value(text)
    if isinstance(value, dict):
        by_number = {str(key): name for key, name in value.items()}
        value = [by_number.get(str(index)) for index in range(len(by_number))]
    if not isinstance(value, list | tuple) or not value or not all(type(name) in (str, int) for name in value):
        raise UserError(where, "must be the list of the names of the classes", code="unreadable")
    names = tuple(str(name) for name in value)
    if len(set(names)) < len(names):
        raise UserError(where, "names a class twice", code="unreadable")
    return names


def _numbers(where: str, text: str) -> tuple[float, ...]:
    value = _value(text)
    try:
        numbers = tuple(float(number) for number in value)
    except (TypeError, ValueError) as error:
        raise UserError(where, "must be a list of numbers, one for each channel", code="unreadable") from error
    if not numbers or not all(map(math.isfinite, numbers)):
        raise UserError(where, "must be a list of finite numbers, one for each channel", code="unreadable")
    return numbers


def _shape(path: Path, text: Mapping[str, str]) -> tuple[int, int, int] | None:
    if "input_shape" not in text:
        return None
    value = _value(text["input_shape"])
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(type(n) is int and n > 0 for n in value):
        raise UserError(f"{path}: input_shape", "must be [channels, height, width]", code="unreadable")
    channels, height, width = value
    return channels, height, width
