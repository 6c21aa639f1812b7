"""Batches made on the device from images that are kept there as bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Generator, Tensor

from espalier.nas.data import augment as changes
from espalier.nas.data.augment import Augment
from espalier.nas.data.images import Images
from espalier.nas.data.pool import Pool
from espalier.nas.errors import UserError

EVALUATION_BATCH = 250
"""Images per batch in evaluation: enough to keep a device busy, and few enough for its memory."""


class Order(Protocol):
    """Decides which images an epoch shows, and in which order."""

    def draw(self, images: int, count: int, generator: Generator) -> Tensor:
        """The order of one epoch.

        Args:
            images: how many images there are.
            count: how many to show.
            generator: the only source of randomness.

        Returns:
            int64 `(count,)` on the CPU, indices below `images`.
        """
        ...


class Batches:
    """Normalised batches of images. Every iteration is one epoch, in which each image appears at most once.

    The pixels move to the device once, as uint8. Random numbers are drawn on the CPU, so epochs are the same on every
    device up to rounding. Only the start of an epoch draws from `generator`: its state, saved between two epochs,
    resumes exactly, and a partly read epoch counts as a whole one.

    Args:
        images: the images; on any device.
        batch_size: images per batch.
        mean: per channel, of pixels scaled to 0..1.
        std: likewise.
        device: where batches are made, in the channels_last memory format.
        shuffle: draw a new order for each epoch; else the images keep theirs.
        augment: random augmentation; None for evaluation.
        generator: a CPU generator; required with `shuffle` or `augment`.
        drop_last: leave out the last batch if it is not full.

    Raises:
        UserError: `drop_last` with fewer images than `batch_size`, so that an epoch would be empty.
        ValueError: no images, a `batch_size` below 1, or randomness asked for without a generator.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device | str = "cpu",
        shuffle: bool = False,
        augment: Augment | None = None,
        generator: Generator | None = None,
        drop_last: bool = False,
    ) -> None:
        if len(images) == 0 or batch_size < 1:
            raise ValueError(
                f"batches need images and a positive size, not {len(images)} images in batches of {batch_size}"
            )
        if generator is None and (shuffle or augment is not None):
            raise ValueError("shuffling and augmentation need a generator")
        if drop_last and batch_size > len(images):
            raise UserError(
                "batch_size",
                f"{batch_size} is more than the {len(images)} training images",
                code="too_few",
            )
        self.batch_size = batch_size
        self._shape = images.image_shape
        self._classes = len(images.classes)
        self._device = torch.device(device)
        self._shuffle, self._augment, self._generator = shuffle, augment, generator
        self._drop_last = drop_last
        self._order: Order | None = None
        self._mean = 255 * torch.tensor(mean, device=device).view(1, -1, 1, 1)
        self._scale = 1 / (255 * torch.tensor(std, device=device).view(1, -1, 1, 1))
        on_device = images.to(device)
        self._labels = on_device.labels
        self._pool = Pool(on_device.pixels, augment.crop_padding if augment else 0)

    def follow(self, order: Order) -> None:
        """Let `order` decide which images an epoch shows; it may repeat images and leave others out.

        Args:
            order: used from the next epoch on.

        Raises:
            ValueError: there is no generator.
        """
        if self._generator is None:
            raise ValueError("a random order needs a generator")
        self._order = order

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self._labels), self.batch_size)
        return full + (rest > 0 and not self._drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch of (x float32 (B, C, H, W), y int64 (B,), or float32 (B, K) with mixup or CutMix)."""
        order, draws = torch.arange(len(self._labels)), Generator()
        if self._order is not None:
            assert self._generator is not None
            count = len(self) * self.batch_size if self._drop_last else len(order)
            order = self._order.draw(len(order), count, self._generator)
        elif self._shuffle:
            order = torch.randperm(len(order), generator=self._generator)
        if self._augment is not None:
            draws.manual_seed(int(torch.randint(2**62, (), generator=self._generator)))
        parts = order.to(self._device).split(self.batch_size)[: len(self)]
        return (self._batch(indices, draws) for indices in parts)

    def _batch(self, indices: Tensor, draws: Generator) -> tuple[Tensor, Tensor]:
        labels = self._labels.index_select(0, indices)
        if self._augment is None:
            return self._normalised(self._pool.crops(indices)), labels
        augment, count = self._augment, len(indices)
        height, width = self._shape[1:]
        corner = torch.randint(2 * augment.crop_padding + 1, (2, count), generator=draws)
        top, left = self._moved(corner)
        pixels = self._pool.crops(indices, top, left)
        if augment.flip:
            pixels = changes.flip(pixels, self._moved(torch.rand(count, generator=draws) < 0.5))
        x = self._normalised(pixels)
        if augment.erase > 0:
            boxes = changes.erasing_boxes(count, height, width, augment.erase, draws)
            x = changes.erase(x, self._moved(boxes))
        return changes.mix(x, labels, self._classes, augment, draws) if augment.mixes else (x, labels)

    def _normalised(self, pixels: Tensor) -> Tensor:
        """(pixels / 255 - mean) / std. Converted first: arithmetic of mixed types is 30 times slower on a CPU."""
        return pixels.to(torch.float32, memory_format=torch.channels_last).sub_(self._mean).mul_(self._scale)

    def _moved(self, drawn: Tensor) -> Tensor:
        return drawn.to(self._device, non_blocking=True)


def even_batch(count: int) -> int:
    """A batch size of at most `EVALUATION_BATCH` that divides `count` images into batches of nearly equal size."""
    return math.ceil(count / math.ceil(count / EVALUATION_BATCH))
