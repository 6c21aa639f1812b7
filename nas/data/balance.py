"""Class-balanced subsets of labelled images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from espalier.nas.errors import UserError


@dataclass(frozen=True)
class Limit:
    """A limit on the number of images of a set; they are selected before anything is decoded.

    Attributes:
        images: how many to keep; None keeps all.
        seed: of the selection.
    """

    images: int | None = None
    seed: int = 0

    def rows(self, labels: Tensor, classes: Sequence[str]) -> Tensor:
        """The images to keep, in the same proportions of classes up to rounding.

        Args:
            labels: int64 (N,).
            classes: names of the classes.

        Returns:
            Sorted int64 indices.

        Raises:
            UserError: a class would be left without images.
        """
        if self.images is None or self.images >= len(labels):
            return torch.arange(len(labels))
        members = rows_by_class(labels, len(classes), Generator().manual_seed(self.seed))
        counts = apportion(self.images, [len(some) for some in members])
        for name, some, count in zip(classes, members, counts, strict=True):
            if count == 0 and len(some):
                raise UserError(
                    "data.limit",
                    f"a limit of {self.images} images leaves none of the {len(some)} images of class {name!r}",
                    code="too_few",
                )
        return torch.cat([some[:count] for some, count in zip(members, counts, strict=True)]).sort().values


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """Integers that sum to `total`, in proportion to `shares`: each is the exact value rounded down or up.

    Args:
        total: the sum.
        shares: not negative; they need not sum to 1.
    """
    ideal = [total * share / sum(shares) for share in shares]
    counts = [math.floor(value + 1e-9) for value in ideal]
    rest = [value - count for value, count in zip(ideal, counts, strict=True)]
    uneven = [part for part in range(len(shares)) if rest[part] > 1e-9]
    for part in sorted(uneven, key=lambda part: (counts[part] > 0, -rest[part]))[: total - sum(counts)]:
        counts[part] += 1
    return counts


def rows_by_class(labels: Tensor, classes: int, generator: Generator) -> list[Tensor]:
    """The indices of the images of each class, shuffled.

    Args:
        labels: int64 (N,).
        classes: number of classes.
        generator: on the CPU.
    """
    order = torch.randperm(len(labels), generator=generator)
    grouped = order[labels[order].argsort(stable=True)]
    return list(grouped.split(labels.bincount(minlength=classes).tolist()))
