"""Parts of labelled images in which the classes keep their shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from espalier.nas.errors import UserError


@dataclass(frozen=True)
class Limit:
    """At most so many images of a set, chosen before anything is decoded.

    Attributes:
        images: how many to keep; None keeps all.
        seed: which.
    """

    images: int | None = None
    seed: int = 0

    def rows(self, labels: Tensor, classes: Sequence[str]) -> Tensor:
        """Sorted int64 indices of the images to keep, in every class its share rounded up or down.

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
                    f"{self.images} images leave none for class {name!r} of {len(some)} images",
                    code="too_few",
                )
        return torch.cat([some[:count] for some, count in zip(members, counts, strict=True)]).sort().values


def apportion(total: int, shares: Sequence[float]) -> list[int]:
    """`total` things divided by `shares` (summing to 1): each share rounded down or up, the sum exact."""
    ideal = [total * share / sum(shares) for share in shares]
    counts = [math.floor(value + 1e-9) for value in ideal]
    rest = [value - count for value, count in zip(ideal, counts, strict=True)]
    uneven = [part for part in range(len(shares)) if rest[part] > 1e-9]
    for part in sorted(uneven, key=lambda part: (counts[part] > 0, -rest[part]))[: total - sum(counts)]:
        counts[part] += 1
    return counts


def rows_by_class(labels: Tensor, classes: int, generator: Generator) -> list[Tensor]:
    """Indices of each class's images, shuffled."""
    order = torch.randperm(len(labels), generator=generator)
    grouped = order[labels[order].argsort(stable=True)]
    return list(grouped.split(labels.bincount(minlength=classes).tolist()))
