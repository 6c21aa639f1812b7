"""Batches of super-resolution: random patches to train on, whole images to judge by."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from espalier.nas.errors import UserError
from espalier.nas.super_resolution.pairs import Pairs
from espalier.nas.task import Batch

SYMMETRIES = 8
"""Of a square: four rotations, each as it is or mirrored."""


class Patches:
    """Batches of random patches, the same place of an image at both resolutions; every iteration is one epoch.

    An epoch shows every image `per_image` times, in a new order, without the last batch where it is not full. As in
    `nas.data.Batches`, starting an epoch draws from `generator` and nothing later does: its state saved between two
    epochs resumes exactly, and a half-read epoch counts as a whole one.

    Args:
        pairs: the training images.
        patch: side of a small patch in pixels; the large one's is `pairs.scale` times as long.
        batch_size: patches per batch.
        generator: a CPU generator.
        per_image: patches of each image in an epoch.
        augment: rotate by multiples of 90 degrees and mirror, each of the eight ways equally often.
        device: where the batches are; the images stay where they are, for those of large sets do not fit.

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
            raise ValueError(f"patches need positive numbers, not {patch}, {batch_size} and {per_image}")
        for pair in pairs:
            height, width = pair.low.shape[1:]
            if min(height, width) < patch:
                raise UserError(
                    pair.name,
                    f"is {width}x{height} when small, smaller than a patch of {patch}x{patch}",
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
            small.append(symmetric(pair.low[:, top : top + p, left : left + p], way))
            large.append(symmetric(pair.high[:, s * top : s * (top + p), s * left : s * (left + p)], way))
        return tuple(self._placed(torch.stack(patches)) for patches in (small, large))  # type: ignore[return-value]

    def _placed(self, pixels: Tensor) -> Tensor:
        """Moved as bytes, then as networks see them."""
        return self.pairs.seen(pixels.to(self._device)).contiguous(memory_format=torch.channels_last)


class WholeImages:
    """One batch for each image, of its whole area; without randomness.

    Args:
        pairs: the images.
        device: where the batches are.
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
            yield tuple(self.pairs.seen(image.to(self._device)[None]) for image in (pair.low, pair.high))  # type: ignore[misc]


def symmetric(image: Tensor, way: int) -> Tensor:
    """One of the eight symmetric forms of images `(..., H, W)`: rotated `way % 4` times by 90 degrees, then mirrored if
    `way` is 4 or more. The memory is shared where it can be.
    """
    turned = torch.rot90(image, way % 4, (-2, -1))
    return turned.flip(-1) if way >= 4 else turned


def undone(image: Tensor, way: int) -> Tensor:
    """The image of which `symmetric` with the same `way` makes this one."""
    straight = image.flip(-1) if way >= 4 else image
    return torch.rot90(straight, -(way % 4), (-2, -1))
