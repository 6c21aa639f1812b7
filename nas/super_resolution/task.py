"""The task of super-resolution: how a network that enlarges images is trained and judged."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.nas.device import autocast
from espalier.nas.super_resolution.quality import judged, psnr, shaved, ssim
from espalier.nas.task import Batch

T = TypeVar("T")


@dataclass(frozen=True)
class Quality:
    """What an upscaled image is worth. psnr_db: inf where it is exactly the true one. ssim: at most 1."""

    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class SuperResolution:
    """A larger image for each image, all values from 0 to 1.

    Networks of three channels get and give RGB. Those of one get the Y of an image that is enlarged already, and give
    Y (see `Pairs.upscaled_luma`). Both are judged by Y, without a border as wide as the scale.

    Attributes:
        scale: how many times as many pixels an image gets on each side.
    """

    scale: int

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean absolute difference, the L1 loss of EDSR and SwinIR."""
        return F.l1_loss(outputs.float(), targets)

    def evaluate(self, model: nn.Module, batches: Iterable[Batch], *, full_precision: bool = True) -> float:
        """Mean PSNR in dB over all images, with the model in evaluation mode; inf if one image is exactly right.

        Args:
            model: enlarges images.
            batches: small images and the true large ones (see `WholeImages`).
            full_precision: without autocast, whose bf16 rounds bright pixels by up to half a level of 255.

        Raises:
            ValueError: there is no image to judge by, or one smaller than its border.
        """
        values = self._each(model, batches, full_precision, psnr)
        return math.fsum(values) / len(values)

    def measure(self, model: nn.Module, batches: Iterable[Batch], *, full_precision: bool = True) -> list[Quality]:
        """PSNR and SSIM of each image, in their order; otherwise as `evaluate`."""
        return self._each(model, batches, full_precision, lambda y, true: Quality(psnr(y, true), ssim(y, true)))

    @torch.no_grad()
    def _each(
        self, model: nn.Module, batches: Iterable[Batch], full_precision: bool, judge: Callable[[Tensor, Tensor], T]
    ) -> list[T]:
        was_training = model.training
        model.eval()
        values = []
        for x, y in batches:
            with nullcontext() if full_precision else autocast(x.device):
                outputs = model(x)
            if outputs.shape != y.shape:
                raise ValueError(f"the network gives {tuple(outputs.shape)} where {tuple(y.shape)} is true")
            for output, true in zip(outputs, y, strict=True):
                values.append(judge(*(shaved(judged(image), self.scale) for image in (output, true))))
        model.train(was_training)
        if not values:
            raise ValueError("no images to evaluate on")
        return values
