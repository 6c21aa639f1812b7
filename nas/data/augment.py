"""Random changes to a batch of training images, one draw per sample, done on the whole batch at once."""

from __future__ import annotations

import math

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Generator, Tensor

from espalier.nas.settings import Settings


class Augment(Settings):
    """Which random changes a training batch gets, in this order; the defaults change nothing."""

    crop_padding: NonNegativeInt = 0
    """Crops of the image's size are cut out of the image with a border of this many black pixels."""
    flip: bool = False
    """Mirror half of the images left to right."""
    erase: float = Field(0.0, ge=0, le=1)
    """Share of images of which a random rectangle is set to the mean colour."""
    mixup: NonNegativeFloat = 0.0
    """Alpha of mixup's Beta distribution, 0 for none."""
    cutmix: NonNegativeFloat = 0.0
    """Alpha of CutMix's; with both, each batch gets one of the two, at even odds."""

    @property
    def mixes(self) -> bool:
        """Whether targets become distributions over the classes."""
        return self.mixup > 0 or self.cutmix > 0


def flip(pixels: Tensor, flipped: Tensor) -> Tensor:
    """Mirror the samples where `flipped` (bool (B,), on the same device) holds; pixels (B, C, H, W).

    The choice is made by bits: torch.where and masked writes are several times slower on bytes.
    """
    every_bit = (255 * flipped).to(torch.uint8)[:, None, None, None]
    return pixels ^ ((pixels ^ pixels.flip(3)) & every_bit)


def erasing_boxes(count: int, height: int, width: int, probability: float, draws: Generator) -> Tensor:
    """Rectangles to erase: int64 (4, B) rows top, left, height, width; zero height and width for none.

    Zhong et al., "Random Erasing Data Augmentation", https://arxiv.org/abs/1708.04896, with timm's constants:
    area 2 to 33 % of the image, aspect ratio 0.3 to 1/0.3 (log-uniform), ten tries to fit into the image.
    timm's own draws from Python's global generator and loops over samples, so it can be neither resumed nor
    kept on the device.
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
    """Set the rectangles `boxes` (see `erasing_boxes`, on x's device) of x (B, C, H, W) to zero, in place.

    On normalised images zero is the mean colour of the training images.
    """
    top, left, height, width = boxes[:, :, None]
    row = torch.arange(x.shape[2], device=x.device)
    column = torch.arange(x.shape[3], device=x.device)
    rows = (row >= top) & (row < top + height)
    columns = (column >= left) & (column < left + width)
    return x.mul_(~(rows[:, None, :, None] & columns[:, None, None, :]))


def mix(x: Tensor, y: Tensor, classes: int, augment: Augment, draws: Generator) -> tuple[Tensor, Tensor]:
    """Mix each image with another one of the batch, by mixup or CutMix; one ratio for the whole batch.

    Zhang et al., https://arxiv.org/abs/1710.09412; Yun et al., https://arxiv.org/abs/1905.04899.
    torchvision's transforms take batches of any size (timm's only even ones). They draw from torch's global
    generator, which is seeded from `draws` here and put back afterwards.

    Args:
        x: float32 (B, C, H, W), normalised.
        y: int64 (B,).

    Returns:
        the mixed x, and float32 (B, classes) targets, each row a distribution.
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
