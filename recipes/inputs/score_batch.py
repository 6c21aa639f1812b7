"""What `nas score` and `nas rank` share: a batch of a user's images, and the space it goes into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from torch import Tensor

from espalier.nas.data import BatchFactory, Limit, channel_statistics, load
from espalier.nas.device import accelerator
from espalier.nas.errors import UserError
from espalier.nas.space import SearchSpace
from espalier.recipes.config.registry import SPACES
from espalier.recipes.config.registry import load as component
from espalier.recipes.config.schema import options_of
from espalier.recipes.config.validation_errors import first_cause

MOST_READ = 2000
"""Images to read at most: the batch is drawn from them, and their mean and standard deviation normalise it."""


@dataclass(frozen=True)
class ScoreBatch:
    """A batch for zero-cost scores: images `x` `(n, channels, height, width)`, normalised, and labels `y` `(n,)`."""

    x: Tensor
    y: Tensor
    classes: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(channels, height, width)`."""
        _, channels, height, width = self.x.shape
        return channels, height, width


def load_batch(data: str, count: int, *, seed: int, size: int | None = None) -> ScoreBatch:
    """Random images of a source, on the device where torch computes.

    Args:
        data: `digits`, a file `.parquet` or `.npz`, or a folder with parquet files or with a folder for each class.
        count: images in the batch.
        seed: which.
        size: resize them to size x size.

    Raises:
        UserError: the source cannot be used, or has fewer images.
    """
    if not 0 <= seed < 2**32:
        raise UserError("--seed", f"must be from 0 to {2**32 - 1}, not {seed}")
    if count < 1:
        raise UserError("--batch-size", f"at least 1 image is needed, not {count}")
    source, path = source_of(data)
    limit = Limit(max(count, MOST_READ), seed)
    images, _ = load(source, path=path, size=size, limit=limit)
    if count > len(images):
        raise UserError("--batch-size", f"{data} has {len(images)} images, not {count}")
    drawn = images.sample(count, torch.Generator().manual_seed(seed))
    x, y = BatchFactory(channel_statistics(images), accelerator()).single(drawn)
    return ScoreBatch(x, y, len(images.classes))


def space_from(text: str, batch: ScoreBatch) -> SearchSpace:
    """The space `NAME` or `NAME:key=value,key=value` for the images of a batch.

    Raises:
        UserError: no such space or option, or the space does not take images of this size.
    """
    name, options = space_options(text)
    return make_space(name, options, batch.image_shape, batch.classes)


def space_options(text: str) -> tuple[str, dict[str, Any]]:
    """The name and all options of the space `NAME` or `NAME:key=value,key=value`.

    Raises:
        UserError: no such space or option.
    """
    name, _, options = text.partition(":")
    component(SPACES, name, where="--space")
    pairs: dict[str, Any] = {}
    for option in filter(None, _between_commas(options)):
        key, equals, value = option.partition("=")
        if not equals:
            raise UserError("--space", f"{option!r} is not of the form key=value")
        try:
            pairs[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--space.{key}", f"{value!r} is not a YAML value") from error
    schema = options_of(SPACES, name, "space")
    try:
        settings = schema.model_validate({"name": name, **pairs})
    except ValidationError as error:
        cause = first_cause(error, schema)
        raise UserError(f"--space.{cause.where}", cause.problem, allowed=cause.allowed, given=cause.where) from error
    return name, settings.model_dump(exclude={"name"})


def make_space(name: str, options: Mapping[str, Any], image_shape: tuple[int, int, int], classes: int) -> SearchSpace:
    """The space of that name for images of a shape `(channels, height, width)`.

    Raises:
        UserError: no such space, or it does not take images of this size.
    """
    space: SearchSpace = component(SPACES, name, where="--space")(image_shape, classes, **options)
    return space


def _between_commas(text: str) -> list[str]:
    """The parts of a text between commas that are in no brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def source_of(data: str) -> tuple[str, Path | None]:
    """The kind of a source, and where it is."""
    if data == "digits":
        return "digits", None
    path = Path(data)
    if not path.exists():
        raise UserError("--data", f"{path} does not exist, and is not digits")
    if path.suffix in (".parquet", ".npz"):
        return path.suffix[1:], path
    return ("parquet" if path.is_dir() and any(path.glob("*.parquet")) else "folder"), path
