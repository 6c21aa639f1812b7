"""Random augmentation of training images, drawn for each image and applied to the whole batch at once."""

from __future__ import annotations

import math

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Generator, Tensor

from espalier.nas.settings import Settings


class Augment(Settings):
    """The augmentation of a training batch, in this order; the defaults change nothing."""

    crop_padding: NonNegativeInt = 0
    """Random crops of the image's size, after padding it with this many black pixels on each side."""
    flip: bool = False
    """Mirror each image left to right with probability 1/2."""
    erase: float = Field(0.0, ge=0, le=1)
    """Probability that a random rectangle of an image is set to the mean colour."""
    mixup: NonNegativeFloat = 0.0
    """Alpha of mixup's Beta distribution; 0 for no mixup."""
    cutmix: NonNegativeFloat = 0.0
    """Alpha of CutMix's Beta distribution; 0 for no CutMix. With both, each batch gets one of them at random."""

    @property
    def mixes(self) -> bool:
        """Whether targets become distributions over the classes (with mixup or CutMix)."""
        return self.mixup > 0 or self.cutmix > 0


def flip(pixels: Tensor, flipped: Tensor) -> Tensor:
    """Mirror some images left to right.

    Selecting by bits is several times as fast on bytes as torch.where or masked writes.

    Args:
        pixels: uint8 (B, C, H, W).
        flipped: bool (B,), on the same device: which images to mirror.
    """
    every_bit = (255 * flipped).to(torch.uint8)[:, None, None, None]
    return pixels ^ ((pixels ^ pixels.flip(3)) & every_bit)


def erasing_boxes(count: int, height: int, width: int, probability: float, draws: Generator) -> Tensor:
    """Random rectangles to erase.

    Zhong et al., "Random Erasing Data Augmentation", https://arxiv.org/abs/1708.04896, with timm's constants:
    area 2 to 33 % of the image, aspect ratio 0.3 to 1/0.3 (log-uniform), ten tries to fit into the image.
    timm's own implementation draws from Python's global generator and loops over images, so it could neither be
    resumed nor run on the device.

    Args:
        count: number of images B.
        height: of an image.
        width: of an image.
        probability: that an image gets a rectangle.
        draws: a CPU generator.

    Returns:
        int64 (4, B) with rows top, left, height, width; height and width are zero for no rectangle.
    """
    area = torch.empty(10, count).uniform_(0.02, 1 / 3, generator=draws) * height * width
    aspect = torch.empty(10, count).uniform_(math.log(0.3), -math.log(0.3), generator=draws).exp()
    heights, widths = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
    fits = (heights < height) & (widths < width)
    first = fits.int().argmax(0, keepdim=True)
    erased = fits.any(0) & (torch.rand(count, generator=draws) < probability)
    box_height, box_width = (size.gather(0, first)[0] * erased for size in (heights, widths))
    top = (torch.rand(count, generator=draws) * (height - box_height + 1)).long()
    left = (torch.rand(count, generator=draws) * (width - box_width + 1)).long()
    return torch.stack([top, left, box_height, box_width])


def erase(x: Tensor, boxes: Tensor) -> Tensor:
    """Set a rectangle of each image to zero, in place; on normalised images that is the mean colour.

    Args:
        x: normalised images (B, C, H, W).
        boxes: see `erasing_boxes`; on x's device.
    """
    top, left, height, width = boxes[:, :, None]
    row = torch.arange(x.shape[2], device=x.device)
    column = torch.arange(x.shape[3], device=x.device)
    rows = (row >= top) & (row < top + height)
    columns = (column >= left) & (column < left + width)
    return x.mul_(~(rows[:, None, :, None] & columns[:, None, None, :]))


def mix(x: Tensor, y: Tensor, classes: int, augment: Augment, draws: Generator) -> tuple[Tensor, Tensor]:
    """Mix each image with another one of the batch by mixup or CutMix, with one ratio for the whole batch.

    Zhang et al., https://arxiv.org/abs/1710.09412; Yun et al., https://arxiv.org/abs/1905.04899.
    torchvision's transforms take batches of any size (timm's only even ones). They draw from torch's global
    generator, which is seeded from `draws` here and restored afterwards.

    Args:
        x: float32 (B, C, H, W), normalised.
        y: int64 (B,).
        classes: number of classes.
        augment: which of the two methods, with which alpha.
        draws: a CPU generator.

    Returns:
        The mixed x, and float32 (B, classes) targets, each row a distribution.
    """
    from torchvision.transforms import v2

    methods: list[torch.nn.Module] = []
    if augment.mixup > 0:
        methods.append(v2.MixUp(alpha=float(augment.mixup), num_classes=classes))
    if augment.cutmix > 0:
        methods.append(v2.CutMix(alpha=float(augment.cutmix), num_classes=classes))
    method = methods[int(torch.randint(len(methods), (), generator=draws))]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(torch.randint(2**62, (), generator=draws)))
        mixed, targets = method(x, y)
    return mixed, targets
