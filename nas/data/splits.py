"""Class-balanced splits of a data set; the test images are held back until the final report."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor

from espalier.nas.data.balance import apportion, rows_by_class
from espalier.nas.data.duplicates import count_shared
from espalier.nas.data.images import Images, Normalisation
from espalier.nas.errors import UserError
from espalier.nas.hashing import short_hash
from espalier.nas.settings import Settings

_log = logging.getLogger(__name__)

TEST_SHARE = 0.2
"""Of the images, as messages propose it."""
PARTS = ("train", "architecture", "selection", "test")


class SplitFractions(Settings):
    """Shares of the images in each split; they sum to 1."""

    train: float = Field(gt=0, le=1)
    """For training weights."""
    architecture: float = Field(ge=0, le=1)
    """For training architecture parameters; the final networks are trained on it too."""
    selection: float = Field(gt=0, le=1)
    """For choosing between architectures."""
    test: float = Field(0.0, ge=0, le=1)
    """For the final report; shared out to the other parts if the source has its own test images."""

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitFractions:
        total = sum(self.shares)
        if not math.isclose(total, 1, abs_tol=1e-6):
            written = as_written([share / total for share in self.shares])
            raise ValueError(f"the shares must sum to 1, not {total:g}; in these proportions: {written}")
        return self

    @property
    def shares(self) -> tuple[float, float, float, float]:
        """In the order of `PARTS`."""
        return self.train, self.architecture, self.selection, self.test

    def fitted(self, *, has_test: bool) -> SplitFractions:
        """The shares for a source: where it has its own test images, the share for tests goes to the other parts.

        Args:
            has_test: whether it has its own test images.

        Raises:
            UserError: it has none, and no share is left for tests.
        """
        if has_test and self.test > 0:
            train, architecture, selection, test = self.shares
            rest = 1 - test
            fitted = SplitFractions(train=train / rest, architecture=architecture / rest, selection=selection / rest)
            _log.info("the source has its own test images, so the others are divided as %s", as_written(fitted.shares))
            return fitted
        if not has_test and self.test == 0:
            cure = as_written([share * (1 - TEST_SHARE) for share in self.shares[:-1]] + [TEST_SHARE])
            problem = f"leaves no images to test on, and the source has none of its own; write {cure}"
            raise UserError("data.split", problem, code="missing")
        return self


def as_written(shares: Sequence[float]) -> str:
    """Shares as a recipe holds them; their sum is 1 after rounding, too.

    Args:
        shares: in the order of `PARTS`; their sum is 1.
    """
    rounded = [round(share, 3) for share in shares[1:]]
    values = [round(1 - sum(rounded), 3), *rounded]
    return "{" + ", ".join(f"{part}: {value:g}" for part, value in zip(PARTS, values, strict=True)) + "}"


@dataclass(frozen=True, eq=False)
class Splits:
    """The parts of one data set, made by `split`.

    Attributes:
        train: images for training weights.
        architecture: images for training architecture parameters.
        selection: images for choosing between architectures.
        normalisation: mean and standard deviation of the train part (std divides by N).
    """

    train: Images
    architecture: Images
    selection: Images
    normalisation: Normalisation
    _test: Images = field(repr=False)

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel of the train part, of pixels scaled to 0..1."""
        return self.normalisation.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel of the train part, of pixels scaled to 0..1."""
        return self.normalisation.std

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.train.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.train.image_shape

    @cached_property
    def fingerprint(self) -> str:
        """The `short_hash` of the fingerprints of all four parts."""
        parts = (self.train, self.architecture, self.selection, self._test)
        return short_hash(" ".join(part.fingerprint for part in parts))

    def final_test(self) -> Images:
        """The test images. Only the final report may use them: choosing anything by them would bias its result."""
        return self._test


def split(pool: Images, test: Images | None, fractions: SplitFractions, *, seed: int) -> Splits:
    """Divide images into disjoint parts, the same ones for the same seed. Every image is in one part.

    In every class each part has its share of the images, rounded down or up. Remaining images go first to parts that
    would be empty, then to those with the largest remainders.

    Args:
        pool: the images to divide.
        test: the source's own test images, if it has any.
        fractions: the shares; fitted to whether there are test images, see `SplitFractions.fitted`.
        seed: of the division.

    Raises:
        UserError: no share for tests where there are no test images, a class too small for its parts, or a channel
            that is constant in all training images.
    """
    generator = Generator().manual_seed(seed)
    indices = _divide(pool, fractions.fitted(has_test=test is not None).shares, generator)
    train, architecture, selection, held_back = (pool.subset(part) for part in indices)
    if test is not None:
        held_back = test
    _tell_shared(train, {"selection": selection, "test": held_back})
    return Splits(train, architecture, selection, channel_statistics(train), held_back)


def _tell_shared(train: Images, judged: Mapping[str, Images]) -> None:
    for part, images in judged.items():
        if shared := count_shared(images, train):
            _log.warning(
                "%d of the %d %s images are identical to training images, so that the accuracy on them is too high; "
                "nas data lists them",
                shared,
                len(images),
                part,
            )


def _divide(pool: Images, shares: Sequence[float], generator: Generator) -> list[Tensor]:
    """Sorted indices of each part."""
    chosen: list[list[Tensor]] = [[] for _ in shares]
    for name, members in zip(pool.classes, rows_by_class(pool.labels, len(pool.classes), generator), strict=True):
        counts = apportion(len(members), shares)
        if any(share > 0 and count == 0 for share, count in zip(shares, counts, strict=True)):
            wanted = ", ".join(f"{part} {share:g}" for part, share in zip(PARTS, shares, strict=True) if share)
            raise UserError(
                "data.split",
                f"class {name!r} has {len(members)} images, too few for the splits {wanted}",
                code="too_few",
            )
        for part, some in zip(chosen, members.split(counts), strict=True):
            part.append(some)
    return [torch.cat(part).sort().values for part in chosen]


def channel_statistics(images: Images) -> Normalisation:
    """The exact mean and standard deviation of each channel, from a histogram of the 256 values.

    Args:
        images: at least one image.

    Raises:
        UserError: a channel is constant.
    """
    value = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in range(images.pixels.shape[1]):
        counts = images.pixels[:, channel].flatten().bincount(minlength=256).double()
        share = counts / counts.sum()
        mean.append(float(share @ value))
        std.append(math.sqrt(float(share @ (value - mean[-1]) ** 2)))
        if std[-1] == 0:
            raise UserError("data", f"channel {channel} is constant in all training images")
    return Normalisation(tuple(mean), tuple(std))
