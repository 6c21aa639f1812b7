"""Batches of the parts of a data set, all normalised alike: to train on, to evaluate with, to look at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from espalier.nas.data.augment import Augment
from espalier.nas.data.batches import Batches, even_batch
from espalier.nas.data.images import Images, Normalisation


@dataclass(frozen=True)
class BatchFactory:
    """Makes `Batches` that share one normalisation and one device.

    Attributes:
        normalisation: mean and standard deviation that every image is normalised with.
        device: where the batches are made.
    """

    normalisation: Normalisation
    device: torch.device | str = "cpu"

    def training(
        self, images: Images, batch_size: int, generator: Generator, *, augment: Augment | None = None
    ) -> Batches:
        """The images in a new order each epoch, in full batches only.

        Args:
            images: the images; fewer than `batch_size` make one smaller batch.
            batch_size: images per batch.
            generator: a CPU generator for the order and the augmentation.
            augment: random changes of each image.
        """
        return Batches(
            images,
            min(batch_size, len(images)),
            mean=self.normalisation.mean,
            std=self.normalisation.std,
            device=self.device,
            shuffle=True,
            augment=augment,
            generator=generator,
            drop_last=True,
        )

    def evaluation(self, images: Images) -> Batches:
        """Every image once, in order and unchanged, in batches of nearly equal size."""
        return self.in_order(images, even_batch(len(images)))

    def in_order(self, images: Images, batch_size: int, *, drop_last: bool = False) -> Batches:
        """The images in order and unchanged.

        Args:
            images: the images; fewer than `batch_size` make one smaller batch.
            batch_size: images per batch.
            drop_last: leave out the last batch if it is not full.
        """
        return Batches(
            images,
            min(batch_size, len(images)),
            mean=self.normalisation.mean,
            std=self.normalisation.std,
            device=self.device,
            drop_last=drop_last,
        )

    def single(self, images: Images) -> tuple[Tensor, Tensor]:
        """All images as one batch.

        Returns:
            x float32 `(n, channels, height, width)` and y int64 `(n,)`.
        """
        return next(iter(self.in_order(images, len(images))))
