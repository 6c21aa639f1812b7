"""Images at two resolutions, in memory as bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from espalier.nas.errors import UserError
from espalier.nas.hashing import DIGITS
from espalier.nas.super_resolution.quality import PEAK, luma


@dataclass(frozen=True, eq=False)
class Pair:
    """One image at two resolutions. Tensors are shared, not copied: treat them as read-only.

    Attributes:
        name: in messages.
        low: uint8 RGB `(3, h, w)`.
        high: uint8 RGB `(3, s h, s w)`, s the scale.

    Raises:
        ValueError: a tensor has another type or shape, or `high` is not a whole number of times as large.
    """

    name: str
    low: Tensor
    high: Tensor

    def __post_init__(self) -> None:
        for image in (self.low, self.high):
            if image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3 or 0 in image.shape:
                raise ValueError(f"{self.name}: pixels must be uint8 (3, H, W), not {image.dtype} {tuple(image.shape)}")
        if tuple(self.high.shape[1:]) != tuple(self.scale * side for side in self.low.shape[1:]):
            raise ValueError(f"{self.name}: {tuple(self.high.shape)} is not a multiple of {tuple(self.low.shape)}")

    @property
    def scale(self) -> int:
        """Factor between the sides of the large and the small image."""
        return self.high.shape[1] // self.low.shape[1]

    @classmethod
    def degraded(cls, name: str, high: Tensor, scale: int) -> Pair:
        """An image, and the small image that PIL's bicubic filter makes of it.

        Args:
            name: in messages.
            high: cropped to a multiple of `scale`; uint8 RGB `(3, H, W)`, at least `scale` pixels on each side.
            scale: factor between the sides.
        """
        height, width = (side // scale for side in high.shape[1:])
        high = high[:, : scale * height, : scale * width].contiguous()
        return cls(name, bicubic(high, height, width), high)


def bicubic(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize an image with PIL's bicubic filter, which is antialiased.

    Args:
        pixels: uint8 RGB `(3, H, W)`.
        height: of the result.
        width: of the result.
    """
    import numpy as np
    from PIL import Image

    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


@dataclass(frozen=True, eq=False)
class Pairs(Sequence[Pair]):
    """Images of any sizes at two resolutions.

    Attributes:
        pairs: at least one, all with the same scale.
        name: of these images in reports.
        on_luma: whether networks take and return Y instead of RGB.

    Raises:
        ValueError: there are no pairs, or they differ in scale.
    """

    pairs: tuple[Pair, ...]
    name: str
    on_luma: bool = False

    def __post_init__(self) -> None:
        if len({pair.scale for pair in self.pairs}) != 1:
            raise ValueError(
                f"{self.name}: all pairs must have one scale, not {sorted({pair.scale for pair in self.pairs})}"
            )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]
        return self.pairs[index]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    @property
    def scale(self) -> int:
        """Factor between the sides of large and small images."""
        return self.pairs[0].scale

    @property
    def channels(self) -> int:
        """Channels of the networks' inputs and outputs: 3 for RGB, 1 for Y."""
        return 1 if self.on_luma else 3

    @cached_property
    def fingerprint(self) -> str:
        """A short SHA-256 of all pixels and shapes, and of `on_luma`, but not of names."""
        shapes = [[list(pair.low.shape), list(pair.high.shape)] for pair in self.pairs]
        digest = hashlib.sha256(json.dumps([shapes, self.on_luma]).encode())
        for pair in self.pairs:
            for image in (pair.low, pair.high):
                digest.update(image.contiguous().numpy().data)
        return digest.hexdigest()[:DIGITS]

    def split(self, validation: int, *, seed: int) -> tuple[Pairs, Pairs]:
        """Split off validation images, the same ones for the same seed.

        Args:
            validation: number of validation images.
            seed: of the selection.

        Returns:
            Training and validation images, each in the original order.

        Raises:
            UserError: one of the two parts would be empty.
        """
        if not 1 <= validation < len(self):
            problem = f"must be 1 to {len(self) - 1} of the {len(self)} images, not {validation}"
            raise UserError("data.validation", problem, code="out_of_range")
        held_back = set(torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:validation].tolist())
        train = tuple(pair for index, pair in enumerate(self.pairs) if index not in held_back)
        rest = tuple(pair for index, pair in enumerate(self.pairs) if index in held_back)
        return replace(self, pairs=train), replace(self, pairs=rest)

    def upscaled_luma(self) -> Pairs:
        """The pairs for networks that take the Y of a bicubically upscaled image, such as VDSR.

        The small images get the size of the large ones, so the scale becomes 1.
        """
        enlarged = (replace(pair, low=bicubic(pair.low, *pair.high.shape[1:])) for pair in self.pairs)
        return replace(self, pairs=tuple(enlarged), on_luma=True)

    def to_input(self, pixels: Tensor) -> Tensor:
        """The input of networks: float32 from 0 to 1, RGB `(B, 3, H, W)` or Y `(B, 1, H, W)`.

        Args:
            pixels: uint8 RGB `(B, 3, H, W)`.
        """
        scaled = pixels.to(torch.float32)
        return (luma(scaled) if self.on_luma else scaled) / PEAK
