"""Images to enlarge: a pruned network learns from patches of them and is judged by its PSNR."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from espalier.nas.data import Normalisation
from espalier.nas.device import accelerator
from espalier.nas.errors import UserError
from espalier.nas.hashing import short_hash
from espalier.nas.seeds import seed_for
from espalier.nas.super_resolution import Pairs, Patches, SuperResolution, WholeImages, load_pairs
from espalier.nas.super_resolution.validation import validate
from espalier.recipes.config.prune_settings import PruneSettings, SuperResolutionSettings
from espalier.recipes.inputs.task_images import outputs_of
from espalier.recipes.inputs.task_score import Score

HELD_BACK = 10
"""One image in so many is held back, and another is tested on where there are no test images."""


@dataclass(frozen=True)
class EnlargedImages:
    """Images at two resolutions; see `espalier.recipes.inputs.task_images.TaskImages`.

    Attributes:
        settings: where they are, with a section `super_resolution`.
        on_luma: networks sharpen the Y of an image that is enlarged already; else they enlarge RGB.
    """

    settings: PruneSettings
    on_luma: bool

    @property
    def options(self) -> SuperResolutionSettings:
        """The section `super_resolution`."""
        assert self.settings.super_resolution is not None
        return self.settings.super_resolution

    @cached_property
    def parts(self) -> tuple[Pairs, Pairs, Pairs]:
        """Training, held-back and test images.

        Raises:
            UserError: there is no file or folder, or too few images in it.
        """
        data, options = self.settings.data, self.options
        if data.path is None:
            raise UserError(
                "data.path", "is missing: super-resolution reads a folder or zip file of images", code="missing"
            )
        pool = load_pairs(data.path, options.scale, low=options.low)
        if data.limit is not None:
            pool = Pairs(pool.pairs[: data.limit], pool.name)
        count = max(1, len(pool) // HELD_BACK)
        if data.test_path is not None:
            test = load_pairs(data.test_path, options.scale, grey=True)
        else:
            pool, test = pool.split(count, seed=seed_for(self.settings.seed, "test"))
        train, held_back = pool.split(count, seed=seed_for(self.settings.seed, "split"))
        if self.on_luma:
            train, held_back, test = (part.upscaled_luma() for part in (train, held_back, test))
        return train, held_back, test

    @property
    def fingerprint(self) -> str:
        """A short hash of all images."""
        return short_hash(" ".join(part.fingerprint for part in self.parts))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(channels, height, width)` of a small patch."""
        return (self.parts[0].channels, self.options.patch, self.options.patch)

    @property
    def classes(self) -> tuple[str, ...]:
        """None: the network makes images."""
        return ()

    @property
    def normalisation(self) -> Normalisation:
        """Networks take pixels in 0..1 as they are."""
        channels = self.parts[0].channels
        return Normalisation((0.0,) * channels, (1.0,) * channels)

    @property
    def task(self) -> SuperResolution:
        """What the network is trained for."""
        return SuperResolution(self.options.scale)

    @property
    def training_count(self) -> int:
        """How many images there are to train on."""
        return len(self.parts[0])

    def check(self, network: nn.Module) -> None:
        """Raises UserError where the network does not enlarge the patches by the scale."""
        channels, side, _ = self.image_shape
        large = side * self.parts[0].scale
        given, wanted = outputs_of(network, self.image_shape), (2, channels, large, large)
        if given != wanted:
            problem = f"returns outputs {given} for 2 images of {side}x{side}, must return {wanted}"
            raise UserError("model", problem, code="mismatch")

    def doubt(self, network: nn.Module, *, is_fresh: bool) -> str | None:
        """None: images have no classes to be mistaken."""
        return None

    def training(self, generator: torch.Generator) -> Patches:
        """Random patches, turned and mirrored."""
        return self._patches(self.settings.train.batch_size, generator, augment=True)

    def plain(self, batch_size: int, *, count: int | None = None, generator: torch.Generator) -> Patches:
        """Random patches as they are; `count` of them for each pass, or as many as in an epoch."""
        per_image = None if count is None else math.ceil(count / self.training_count)
        return self._patches(batch_size, generator, augment=False, per_image=per_image)

    def validate(self, network: nn.Module) -> float:
        """Mean PSNR on the images held back."""
        return self.task.evaluate(network, WholeImages(self.parts[1], device=accelerator()))

    def score(self, network: nn.Module) -> Score:
        """Mean PSNR on the test images, with a bootstrap interval over them."""
        test = self.parts[2]
        mean = validate(self.task, network, test, device=accelerator()).psnr_db
        low, high = mean.interval or (None, None)
        return Score("PSNR", "dB", mean.value, low, high, mean.n, test.name)

    def _patches(
        self, batch_size: int, generator: torch.Generator, *, augment: bool, per_image: int | None = None
    ) -> Patches:
        train, options = self.parts[0], self.options
        per_image = options.per_image if per_image is None else per_image
        size = min(batch_size, len(train) * per_image)
        return Patches(
            train,
            options.patch,
            size,
            generator=generator,
            per_image=per_image,
            augment=augment,
            device=accelerator(),
        )
