"""Batches for super-resolution: random patches for training, whole images for evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from espalier.nas.errors import UserError
from espalier.nas.super_resolution.pairs import Pairs
from espalier.nas.task import Batch

SYMMETRIES = 8
"""Of a square: four rotations, each with and without a reflection."""


class Patches:
    """Batches of random patches, at the same position of an image at both resolutions. Every iteration is one epoch.

    An epoch shows every image `per_image` times in a new order, without a last batch that is not full. As in
    `nas.data.Batches`, only the start of an epoch draws from `generator`: its state, saved between two epochs, resumes
    exactly, and a partly read epoch counts as a whole one.

    Args:
        pairs: the training images.
        patch: side of a small patch in pixels; that of the large patch is `pairs.scale` times as long.
        batch_size: patches per batch.
        generator: a CPU generator.
        per_image: patches of each image in an epoch.
        augment: rotate and mirror patches, with equal probability for each of the eight symmetries.
        device: of the batches; the images are not moved, for large sets would not fit.

    Raises:
        UserError: an image smaller than a patch, or not enough patches for one batch.
        ValueError: a number below 1.
    """

    def __init__(
        self,
        pairs: Pairs,
        patch: int,
        batch_size: int,
        *,
        generator: Generator,
        per_image: int = 1,
        augment: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        if min(patch, batch_size, per_image) < 1:
            raise ValueError(
                f"patch, batch_size and per_image must be positive, not {patch}, {batch_size} and {per_image}"
            )
        for pair in pairs:
            height, width = pair.low.shape[1:]
            if min(height, width) < patch:
                raise UserError(
                    pair.name,
                    f"the small image is {width}x{height}, smaller than a patch of {patch}x{patch}",
                    code="too_few",
                )
        if len(pairs) * per_image < batch_size:
            problem = f"{batch_size} is more than the {len(pairs) * per_image} patches of an epoch"
            raise UserError("batch_size", problem, code="too_few")
        self.pairs = pairs
        self.patch = patch
        self.batch_size = batch_size
        self._generator, self._per_image, self._augment = generator, per_image, augment
        self._device = torch.device(device)

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.pairs) * self._per_image // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        """One epoch of (x `(B, C, p, p)`, y `(B, C, s p, s p)`), float32 from 0 to 1, C as in `Pairs.channels`."""
        draws = Generator().manual_seed(int(torch.randint(2**62, (), generator=self._generator)))
        order = torch.cat([torch.randperm(len(self.pairs), generator=draws) for _ in range(self._per_image)])
        parts = order.split(self.batch_size)[: len(self)]
        return (self._batch(indices, draws) for indices in parts)

    def _batch(self, indices: Tensor, draws: Generator) -> Batch:
        places = torch.rand(len(indices), 2, generator=draws).tolist()
        ways = torch.randint(SYMMETRIES if self._augment else 1, (len(indices),), generator=draws).tolist()
        small, large = [], []
        for index, (y, x), way in zip(indices.tolist(), places, ways, strict=True):
            pair, p, s = self.pairs[index], self.patch, self.pairs.scale
            height, width = pair.low.shape[1:]
            top, left = int(y * (height - p + 1)), int(x * (width - p + 1))
            small.append(apply_symmetry(pair.low[:, top : top + p, left : left + p], way))
            large.append(apply_symmetry(pair.high[:, s * top : s * (top + p), s * left : s * (left + p)], way))
        return tuple(self._placed(torch.stack(patches)) for patches in (small, large))  # type: ignore[return-value]

    def _placed(self, pixels: Tensor) -> Tensor:
        """Moved to the device as bytes, then converted to the input of networks."""
        return self.pairs.to_input(pixels.to(self._device)).contiguous(memory_format=torch.channels_last)


class WholeImages:
    """One batch for each whole image, without randomness.

    Args:
        pairs: the images.
        device: of the batches.
    """

    def __init__(self, pairs: Pairs, *, device: torch.device | str = "cpu") -> None:
        self.pairs = pairs
        self._device = torch.device(device)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.pairs)

    def __iter__(self) -> Iterator[Batch]:
        """(x `(1, C, h, w)`, y `(1, C, s h, s w)`), float32 from 0 to 1, C as in `Pairs.channels`."""
        for pair in self.pairs:
            yield tuple(self.pairs.to_input(image.to(self._device)[None]) for image in (pair.low, pair.high))  # type: ignore[misc]


def apply_symmetry(image: Tensor, way: int) -> Tensor:
    """Apply one of the eight symmetries of the square to images.

    Args:
        image: `(..., H, W)`; the result shares its memory if possible.
        way: rotate `way % 4` times by 90 degrees, then mirror if it is 4 or more.
    """
    turned = torch.rot90(image, way % 4, (-2, -1))
    return turned.flip(-1) if way >= 4 else turned


def undo_symmetry(image: Tensor, way: int) -> Tensor:
    """The inverse of `apply_symmetry`.

    Args:
        image: `(..., H, W)`.
        way: as for `apply_symmetry`.
    """
    straight = image.flip(-1) if way >= 4 else image
    return torch.rot90(straight, -(way % 4), (-2, -1))
