"""What a plan read from a file may hold: the first value that cannot be is named by its key."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt, ValidationError
from torch import nn

from espalier.nas.errors import UserError

Side = Annotated[int, Field(gt=0, le=1 << 20)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Values(BaseModel):
    """The values of a plan; see `espalier.pruning.pruned_model.Plan`."""

    model_config = ConfigDict(strict=True)

    factory: Annotated[str, Field(min_length=1, max_length=4096)]
    image_shape: tuple[Side, Side, Side]
    classes: tuple[str, ...]
    mean: tuple[FiniteFloat, ...]
    std: tuple[Positive, ...]
    structure: dict[str, Any]
    zeros: dict[str, NonNegativeInt]
    settings: dict[str, Any]
    groups: tuple[dict[str, Any], ...]


def checked_values(document: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The values of a plan, with tuples for its lists.

    Args:
        document: the plan's keys and values, as JSON gives them.
        path: of its file.

    Raises:
        UserError: a value of a wrong type or range, a number that is not finite, or values that contradict each other.
    """
    for key, number in _not_finite(document):
        raise UserError(f"{path}: {key}", f"is {number}, must be a finite number", code="out_of_range")
    try:
        values = dict(_Values.model_validate_json(json.dumps(document)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {key}", f"{first['msg'].lower()}, not {str(first['input'])[:80]}") from error
    channels = values["image_shape"][0]
    for key in ("mean", "std"):
        if len(values[key]) != channels:
            problem = f"has {len(values[key])} numbers, must have one for each of the {channels} channels"
            raise UserError(f"{path}: {key}", problem, code="mismatch")
    twice = next((name for name in values["classes"] if values["classes"].count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: classes", f"names {twice!r} twice")
    return values


def check_outputs(network: nn.Module, image_shape: tuple[int, int, int], classes: int, path: Path) -> None:
    """Compare the number of classes with the network's outputs.

    Args:
        network: on the CPU, in evaluation mode.
        image_shape: `(channels, height, width)`.
        classes: of the plan; 0 for networks that do not classify images, which are not looked at.
        path: of the plan's file.

    Raises:
        UserError: the network does not take such images, or no output has that many columns.
    """
    if not classes:
        return
    try:
        with torch.no_grad():
            outputs = network(torch.zeros(1, *image_shape))
    except (RuntimeError, ValueError, TypeError, LookupError, AssertionError) as error:  # of any layer
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path}: image_shape", f"the network does not take it ({first})", code="mismatch") from error
    widths = [tensor.shape[-1] for tensor in _tensors(outputs) if tensor.ndim > 1]
    if classes not in widths:
        problem = f"has {classes} names, and the network's outputs have {', '.join(map(str, widths)) or 'no'} columns"
        raise UserError(f"{path}: classes", problem, code="mismatch")


def _tensors(outputs: Any) -> Iterator[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        yield outputs
    elif isinstance(outputs, Mapping):
        for inner in outputs.values():
            yield from _tensors(inner)
    elif isinstance(outputs, tuple | list):
        for inner in outputs:
            yield from _tensors(inner)


def _not_finite(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, float) and not math.isfinite(value):
        yield key, value
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from _not_finite(inner, f"{key}.{name}".lstrip("."))
