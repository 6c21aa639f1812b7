"""Labelled images in memory, as bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from espalier.nas.hashing import DIGITS


class Normalisation(NamedTuple):
    """How pixels scaled to 0..1 are normalised, `(pixel - mean) / std`.

    Attributes:
        mean: per channel.
        std: per channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Images:
    """N images of one size with one class each. Tensors are shared, not copied: treat them as read-only.

    Attributes:
        pixels: uint8 (N, C, H, W).
        labels: int64 (N,), indices into `classes`.
        classes: the names of the classes; a class may have no image.
        name: of these images in reports.

    Raises:
        ValueError: a tensor has another type or shape, the lengths differ, or a label is outside `classes`.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4 or 0 in self.pixels.shape[1:]:
            raise ValueError(f"pixels must be uint8 (N, C, H, W), not {_describe(self.pixels)}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.pixels.shape[:1]:
            raise ValueError(f"labels must be int64 ({len(self.pixels)},), not {_describe(self.labels)}")
        if ((self.labels < 0) | (self.labels >= len(self.classes))).any():
            raise ValueError(f"labels must be 0 to {len(self.classes) - 1}, one for each of the classes")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @cached_property
    def fingerprint(self) -> str:
        """A short SHA-256 of shape, pixels, labels and class names, but not of `name`."""
        digest = hashlib.sha256(json.dumps([list(self.pixels.shape), list(self.classes)]).encode())
        for tensor in (self.pixels, self.labels):
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()[:DIGITS]

    def subset(self, indices: Tensor) -> Images:
        """A copy of some images.

        Args:
            indices: int64, on the images' device; the copy is in this order.
        """
        return replace(self, pixels=self.pixels.index_select(0, indices), labels=self.labels.index_select(0, indices))

    def sample(self, count: int, generator: Generator) -> Images:
        """`count` images drawn without replacement, or all if there are fewer, in random order.

        Args:
            count: how many.
            generator: on the CPU.
        """
        return self.subset(torch.randperm(len(self), generator=generator)[:count])

    def to(self, device: torch.device | str) -> Images:
        """The same images on `device`; `self` if they are there already."""
        if self.pixels.device == torch.empty(0, device=device).device:
            return self
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
