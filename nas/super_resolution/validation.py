"""The quality of a network on a set of images, with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from espalier.nas.intervals import bootstrap_interval
from espalier.nas.super_resolution.batches import SYMMETRIES, WholeImages, apply_symmetry, undo_symmetry
from espalier.nas.super_resolution.pairs import Pairs
from espalier.nas.super_resolution.task import Quality, SuperResolution

RESAMPLES = 10_000
FEW = 20
"""With fewer images, percentile intervals are known to be too narrow."""


@dataclass(frozen=True)
class MeanOfImages:
    """A mean over images.

    Attributes:
        value: the mean.
        n: how many images.
        interval: 95 % bootstrap interval over images; None for one image, or if a value is not finite.
    """

    value: float
    n: int
    interval: tuple[float, float] | None

    def text(self, digits: int = 2) -> str:
        """As text, such as `33.67 [31.02, 36.41], n = 5 (few)`."""
        ends = "" if self.interval is None else " [{:.{d}f}, {:.{d}f}]".format(*self.interval, d=digits)
        return f"{self.value:.{digits}f}{ends}, n = {self.n}{' (few)' if self.n < FEW else ''}"


def mean_of_images(values: Sequence[float]) -> MeanOfImages:
    """The mean with its percentile bootstrap interval (see `espalier.nas.intervals.bootstrap_interval`).

    Images differ much more than networks do. Compare two networks by the mean of their differences on the same images
    (see `gain`), not by their intervals.

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
    """The quality of a network on a set of images.

    Attributes:
        name: of the images.
        scale: factor between the sides of output and input.
        images: name and quality of each image.
    """

    name: str
    scale: int
    images: tuple[tuple[str, Quality], ...]

    @property
    def psnr_db(self) -> MeanOfImages:
        """Mean PSNR; infinite, without an interval, if an image is exact."""
        return mean_of_images([quality.psnr_db for _, quality in self.images])

    @property
    def ssim(self) -> MeanOfImages:
        """Mean SSIM."""
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
        task: defines the metrics.
        model: on `device`.
        pairs: the images.
        device: where to compute.
        self_ensemble: average the outputs for the eight symmetries of each image, which takes eight times as long.

    Raises:
        ValueError: the network returns images of another size, or an image is too small for SSIM.
    """
    whole = WholeImages(pairs, device=device)
    qualities = task.measure(SelfEnsemble(model) if self_ensemble else model, whole)
    return Validation(pairs.name, task.scale, tuple(zip((pair.name for pair in pairs), qualities, strict=True)))


def gain(one: Validation, other: Validation) -> MeanOfImages:
    """The mean paired difference in PSNR between two networks on the same images, in dB.

    Args:
        one: positive differences mean that this one is better.
        other: the network to compare with.

    Raises:
        ValueError: the images or scales differ.
    """
    if (one.scale, [name for name, _ in one.images]) != (other.scale, [name for name, _ in other.images]):
        raise ValueError("the two networks were evaluated on different images")
    return mean_of_images([a.psnr_db - b.psnr_db for (_, a), (_, b) in zip(one.images, other.images, strict=True)])


class SelfEnsemble(nn.Module):
    """The mean of a network's outputs for all symmetries of its input, each undone.

    Lim et al., https://arxiv.org/abs/1707.02921, section 3.4: EDSR+.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        outputs = [undo_symmetry(self.model(apply_symmetry(x, way)), way) for way in range(SYMMETRIES)]
        return torch.stack(outputs).mean(dim=0)
