"""The task of super-resolution: its loss and its metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.nas.device import autocast
from espalier.nas.network_inputs import prediction
from espalier.nas.super_resolution.quality import crop_border, evaluated_luma, psnr, ssim
from espalier.nas.task import Batch

T = TypeVar("T")


@dataclass(frozen=True)
class Quality:
    """The quality of an upscaled image.

    Attributes:
        psnr_db: in dB; inf if it equals the true image.
        ssim: at most 1.
    """

    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class SuperResolution:
    """Upscaling images with values from 0 to 1.

    Networks of three channels take and return RGB. Those of one channel take the Y of an upscaled image, and return Y
    (see `Pairs.upscaled_luma`). Both are evaluated on Y, without a border as wide as the scale.

    Attributes:
        scale: factor between the sides of output and input.
    """

    scale: int

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Mean absolute difference, the L1 loss of EDSR and SwinIR."""
        return F.l1_loss(prediction(outputs).float(), targets)

    def evaluate(self, model: nn.Module, batches: Iterable[Batch], *, full_precision: bool = True) -> float:
        """Mean PSNR in dB over all images, with the model in evaluation mode; inf if one image is exact.

        Args:
            model: upscales images.
            batches: small images and the true large ones (see `WholeImages`).
            full_precision: without autocast, whose bf16 rounds bright pixels by up to half a level of 255.

        Raises:
            ValueError: there are no images, or one is smaller than its border.
        """
        values = self._each(model, batches, full_precision, psnr)
        return math.fsum(values) / len(values)

    def measure(self, model: nn.Module, batches: Iterable[Batch], *, full_precision: bool = True) -> list[Quality]:
        """PSNR and SSIM of each image.

        Args:
            model: as for `evaluate`.
            batches: as for `evaluate`.
            full_precision: as for `evaluate`.
        """
        return self._each(model, batches, full_precision, lambda y, true: Quality(psnr(y, true), ssim(y, true)))

    @torch.no_grad()
    def _each(
        self, model: nn.Module, batches: Iterable[Batch], full_precision: bool, metric: Callable[[Tensor, Tensor], T]
    ) -> list[T]:
        was_training = model.training
        model.eval()
        values = []
        for x, y in batches:
            with nullcontext() if full_precision else autocast(x.device):
                outputs = prediction(model(x))
            if outputs.shape != y.shape:
                raise ValueError(f"the network returns {tuple(outputs.shape)} instead of {tuple(y.shape)}")
            for output, true in zip(outputs, y, strict=True):
                values.append(metric(*(crop_border(evaluated_luma(image), self.scale) for image in (output, true))))
        model.train(was_training)
        if not values:
            raise ValueError("no images to evaluate on")
        return values
