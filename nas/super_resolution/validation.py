"""What a network is worth on a set of images, and how far that can be said from so many of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from espalier.nas.intervals import bootstrap_interval
from espalier.nas.super_resolution.batches import SYMMETRIES, WholeImages, symmetric, undone
from espalier.nas.super_resolution.pairs import Pairs
from espalier.nas.super_resolution.task import Quality, SuperResolution

RESAMPLES = 10_000
FEW = 20
"""Images below which a percentile interval is known to be too narrow."""


@dataclass(frozen=True)
class MeanOfImages:
    """A mean over images.

    Attributes:
        value: the mean.
        n: how many images.
        interval: 95 % bootstrap interval over images; None for one image, or where a value is not finite.
    """

    value: float
    n: int
    interval: tuple[float, float] | None

    def text(self, digits: int = 2) -> str:
        """`33.67 [31.02, 36.41], n = 5 (few)`."""
        ends = "" if self.interval is None else " [{:.{d}f}, {:.{d}f}]".format(*self.interval, d=digits)
        return f"{self.value:.{digits}f}{ends}, n = {self.n}{' (few)' if self.n < FEW else ''}"


def mean_of_images(values: Sequence[float]) -> MeanOfImages:
    """The mean with its percentile bootstrap interval (see `espalier.nas.intervals.bootstrap_interval`).

    Images differ much more than networks do, so two networks are compared by the mean of their differences on the same
    images (see `gain`), not by two intervals.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a mean needs at least one image")
    numbers = np.asarray(values, dtype=np.float64)
    mean = math.fsum(values) / len(values) if np.isfinite(numbers).all() else float(numbers.mean())
    if len(values) == 1 or not math.isfinite(mean):
        return MeanOfImages(mean, len(values), None)
    return MeanOfImages(mean, len(values), bootstrap_interval(numbers, np.mean, resamples=RESAMPLES))


@dataclass(frozen=True)
class Validation:
    """A network on a set of images.

    Attributes:
        name: of the set.
        scale: of the enlargement.
        images: names and qualities, in their order.
    """

    name: str
    scale: int
    images: tuple[tuple[str, Quality], ...]

    @property
    def psnr_db(self) -> MeanOfImages:
        """Infinite, without an interval, where an image is exactly right."""
        return mean_of_images([quality.psnr_db for _, quality in self.images])

    @property
    def ssim(self) -> MeanOfImages:
        """The mean of all images."""
        return mean_of_images([quality.ssim for _, quality in self.images])


def validate(
    task: SuperResolution,
    model: nn.Module,
    pairs: Pairs,
    *,
    device: torch.device | str = "cpu",
    self_ensemble: bool = False,
) -> Validation:
    """PSNR and SSIM of each image of `pairs`.

    Args:
        task: says how they are judged.
        model: on `device`.
        self_ensemble: average the outputs for the eight symmetric forms of each image, at eight times the time.

    Raises:
        ValueError: the network gives images of another size, or one is too small for SSIM.
    """
    whole = WholeImages(pairs, device=device)
    qualities = task.measure(SelfEnsemble(model) if self_ensemble else model, whole)
    return Validation(pairs.name, task.scale, tuple(zip((pair.name for pair in pairs), qualities, strict=True)))


def gain(one: Validation, other: Validation) -> MeanOfImages:
    """By how many dB the first network is better than the other, over the same images, pair by pair.

    Raises:
        ValueError: the images or scales differ.
    """
    if (one.scale, [name for name, _ in one.images]) != (other.scale, [name for name, _ in other.images]):
        raise ValueError("the two networks were judged on different images")
    return mean_of_images([a.psnr_db - b.psnr_db for (_, a), (_, b) in zip(one.images, other.images, strict=True)])


class SelfEnsemble(nn.Module):
    """The mean of a network's outputs for all rotations and reflections of its input, each turned back.

    Lim et al., https://arxiv.org/abs/1707.02921, section 3.4: EDSR+.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        outputs = [undone(self.model(symmetric(x, way)), way) for way in range(SYMMETRIES)]
        return torch.stack(outputs).mean(dim=0)
