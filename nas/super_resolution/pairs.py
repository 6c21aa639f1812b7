"""Images at two resolutions, held in memory as bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from espalier.nas.errors import UserError
from espalier.nas.super_resolution.quality import PEAK, luma


@dataclass(frozen=True, eq=False)
class Pair:
    """One image, small and large. Tensors are shared, not copied: treat them as read-only.

    Attributes:
        name: what an error calls it.
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
            raise ValueError(f"{self.name}: {tuple(self.high.shape)} is no multiple of {tuple(self.low.shape)}")

    @property
    def scale(self) -> int:
        """How many times as many pixels the large image has on each side."""
        return self.high.shape[1] // self.low.shape[1]

    @classmethod
    def degraded(cls, name: str, high: Tensor, scale: int) -> Pair:
        """An image and what PIL's bicubic filter makes of it, once it is cropped to a multiple of `scale`.

        Args:
            high: uint8 RGB `(3, H, W)`, at least `scale` pixels on each side.
        """
        height, width = (side // scale for side in high.shape[1:])
        high = high[:, : scale * height, : scale * width].contiguous()
        return cls(name, bicubic(high, height, width), high)


def bicubic(pixels: Tensor, height: int, width: int) -> Tensor:
    """`pixels`, uint8 RGB `(3, H, W)`, resized by PIL's bicubic filter, which widens its kernel to make smaller."""
    import numpy as np
    from PIL import Image

    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


@dataclass(frozen=True, eq=False)
class Pairs(Sequence[Pair]):
    """Images of any sizes at two resolutions.

    Attributes:
        pairs: at least one.
        name: what a report calls them.
        on_luma: networks get and give Y instead of RGB.

    Raises:
        ValueError: there are none, or they differ in scale.
    """

    pairs: tuple[Pair, ...]
    name: str
    on_luma: bool = False

    def __post_init__(self) -> None:
        if len({pair.scale for pair in self.pairs}) != 1:
            raise ValueError(f"{self.name}: one scale is needed, not {sorted({pair.scale for pair in self.pairs})}")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]
        return self.pairs[index]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self.pairs)

    @property
    def scale(self) -> int:
        """How many times as many pixels the large images have on each side."""
        return self.pairs[0].scale

    @property
    def channels(self) -> int:
        """Of what networks get and give: 3 for RGB, 1 for Y."""
        return 1 if self.on_luma else 3

    @cached_property
    def fingerprint(self) -> str:
        """sha256[:12] of all pixels and shapes, and whether networks see Y. Names do not count."""
        shapes = [[list(pair.low.shape), list(pair.high.shape)] for pair in self.pairs]
        digest = hashlib.sha256(json.dumps([shapes, self.on_luma]).encode())
        for pair in self.pairs:
            for image in (pair.low, pair.high):
                digest.update(image.contiguous().numpy().data)
        return digest.hexdigest()[:12]

    def split(self, validation: int, *, seed: int) -> tuple[Pairs, Pairs]:
        """Training images and `validation` others, the same for the same seed, each in the order they have here.

        Raises:
            UserError: not at least one image for each.
        """
        if not 1 <= validation < len(self):
            problem = f"must leave images to train on: 1 to {len(self) - 1} of the {len(self)}, not {validation}"
            raise UserError("data.validation", problem, code="out_of_range")
        held_back = set(torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:validation].tolist())
        train = tuple(pair for index, pair in enumerate(self.pairs) if index not in held_back)
        rest = tuple(pair for index, pair in enumerate(self.pairs) if index in held_back)
        return replace(self, pairs=train), replace(self, pairs=rest)

    def upscaled_luma(self) -> Pairs:
        """For networks that sharpen the Y of an image that bicubic interpolation has enlarged, as VDSR does.

        The small images become as large as the large ones, so the scale is 1 and patches are as large as well.
        """
        enlarged = (replace(pair, low=bicubic(pair.low, *pair.high.shape[1:])) for pair in self.pairs)
        return replace(self, pairs=tuple(enlarged), on_luma=True)

    def seen(self, pixels: Tensor) -> Tensor:
        """Bytes of RGB `(B, 3, H, W)` as networks see them: float32 from 0 to 1, `(B, 3, H, W)` or Y `(B, 1, H, W)`."""
        scaled = pixels.to(torch.float32)
        return (luma(scaled) if self.on_luma else scaled) / PEAK
