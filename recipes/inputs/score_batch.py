"""One batch of images for zero-cost scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from espalier.nas.data import BatchFactory, Limit, channel_statistics
from espalier.nas.device import accelerator
from espalier.nas.errors import UserError
from espalier.recipes.config.data_source import data_source
from espalier.recipes.config.options import checked_options
from espalier.recipes.config.registry import DATA_SOURCES
from espalier.recipes.config.sections.data import NOT_THE_USERS, load_source

MOST_READ = 2000
"""Images to read at most: the batch is drawn from them, and their mean and standard deviation normalise it."""


@dataclass(frozen=True)
class ScoreBatch:
    """A batch for zero-cost scores.

    Attributes:
        x: normalised images, float32 `(n, channels, height, width)`.
        y: their labels, int64 `(n,)`.
        classes: how many there are.
    """

    x: Tensor
    y: Tensor
    classes: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(channels, height, width)`."""
        _, channels, height, width = self.x.shape
        return channels, height, width


def load_batch(data: str | Path, batch_size: int, *, seed: int, size: int | None = None) -> ScoreBatch:
    """Random images of a source, on the device where torch computes.

    Args:
        data: see `data_source`.
        batch_size: images in the batch.
        seed: of the draw.
        size: resize the images to size x size.

    Raises:
        UserError: the source cannot be used, or has fewer images.
    """
    if not 0 <= seed < 2**32:
        raise UserError("seed", f"is {seed}, must be from 0 to {2**32 - 1}", code="out_of_range")
    if batch_size < 1:
        raise UserError("batch_size", f"is {batch_size}, must be at least 1", code="out_of_range")
    source, path = data_source(data)
    limit = Limit(max(batch_size, MOST_READ), seed)
    own = source if isinstance(source, str) else checked_options(DATA_SOURCES, source, without=NOT_THE_USERS)
    images, _ = load_source(own, path=path, size=size, limit=limit)
    if batch_size > len(images):
        raise UserError("batch_size", f"is {batch_size}, {data} has {len(images)} images", code="too_few")
    drawn = images.sample(batch_size, torch.Generator().manual_seed(seed))
    x, y = BatchFactory(channel_statistics(images), accelerator()).single(drawn)
    return ScoreBatch(x, y, len(images.classes))
