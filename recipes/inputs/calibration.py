"""The images that a quantised network is calibrated with, and those it is judged by. No image is in both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from espalier.nas.data import BatchFactory, Images, Normalisation, Splits
from espalier.nas.errors import UserError
from espalier.nas.network_images import NetworkImages
from espalier.nas.seeds import seed_for
from espalier.recipes.config.quantize_settings import QuantizeSettings
from espalier.recipes.inputs.classification_data import divided


@dataclass(frozen=True)
class NormalisedImages:
    """Images as a network takes them, made batch by batch.

    Attributes:
        images: the images.
        normalisation: mean and standard deviation that they are normalised with.
    """

    images: Images
    normalisation: Normalisation

    @property
    def labels(self) -> np.ndarray:
        """The index of each image's class, int64 `(n,)`."""
        return self.images.labels.numpy()

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Float32 `(size, C, H, W)` in order; the last batch may be smaller."""
        for x, _ in BatchFactory(self.normalisation).in_order(self.images, size):
            yield np.ascontiguousarray(x.numpy())


@dataclass(frozen=True)
class QuantizationImages:
    """The images of the settings, divided as `nas prune` divides them with the same seed.

    Attributes:
        settings: where they are.
        given: what is known of the images that the network takes.
    """

    settings: QuantizeSettings
    given: NetworkImages = NetworkImages()  # noqa: RUF009 - immutable

    @cached_property
    def splits(self) -> Splits:
        """The images, divided."""
        return divided(self.settings.data, self.settings.seed, self.given.classes)

    @property
    def classes(self) -> int:
        """How many classes the images have."""
        return len(self.splits.classes)

    @property
    def description(self) -> str:
        """What the network takes, for the model card."""
        mean, std = (", ".join(f"{value:.4g}" for value in values) for values in self.normalisation)
        shape = ", ".join(map(str, self.splits.image_shape))
        return (
            f"`images` are float32 `(batch, {shape})`, `(pixels / 255 - mean) / std` with, for each channel, mean "
            f"{mean} and\nstd {std}"
        )

    @cached_property
    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of each channel of pixels in 0..1."""
        data = self.settings.data
        own = data.normalisation or self.given.normalisation or self.splits.normalisation
        channels = self.splits.image_shape[0]
        if len(own.mean) != channels:
            raise UserError("data.mean", f"has {len(own.mean)} channels, the images have {channels}", code="mismatch")
        return own

    @property
    def described(self) -> NetworkImages:
        """What the written files say of them."""
        return NetworkImages(self.splits.classes, self.normalisation, self.splits.image_shape)

    def calibration(self) -> np.ndarray:
        """Training images, float32 `(n, C, H, W)`, drawn once; the test images are never among them."""
        generator = torch.Generator().manual_seed(seed_for(self.settings.seed, "calibration"))
        images = self.splits.train.sample(self.settings.calibration_images, generator)
        return next(self._normalised(images).batches(len(images)))

    def held_back(self) -> NormalisedImages:
        """Images by which one of several equally fast forms is chosen."""
        return self._normalised(self.splits.selection)

    def test(self) -> NormalisedImages:
        """Test images, used once."""
        return self._normalised(self.splits.final_test())

    def _normalised(self, images: Images) -> NormalisedImages:
        return NormalisedImages(images, self.normalisation)
