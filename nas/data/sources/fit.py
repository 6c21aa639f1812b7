"""Checks and conversions that all sources share: memory, image size, labels."""

from __future__ import annotations

import torch
from torch import Tensor

from espalier.nas.errors import UserError

MEMORY_SHARE = 0.8


def require_memory(size_bytes: int, subject: str, *, where: str = "data.size") -> None:
    """Check that something fits into 80 % of the available memory.

    Args:
        size_bytes: what it needs.
        subject: beginning of the message, such as "5 images need".
        where: the key that decides how large it is.

    Raises:
        UserError: it does not fit.
    """
    import psutil

    available_bytes = psutil.virtual_memory().available
    if size_bytes > MEMORY_SHARE * available_bytes:
        raise UserError(
            where,
            f"{subject} {size_bytes / 2**30:.1f} GiB, but only {available_bytes / 2**30:.1f} GiB of "
            "memory are available; make it smaller",
            code="out_of_range",
        )


def resize(pixels: Tensor, size: int | None) -> Tensor:
    """Resize images to size x size, bilinear with antialiasing; unchanged without a size.

    Args:
        pixels: uint8 (N, C, H, W).
        size: in pixels.

    Raises:
        UserError: the result does not fit into memory.
    """
    if size is None or tuple(pixels.shape[2:]) == (size, size):
        return pixels
    require_memory(pixels.shape[0] * pixels.shape[1] * size * size, f"{len(pixels)} images need")
    return torch.nn.functional.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)


def check_labels(where: str, labels: Tensor, classes: tuple[str, ...] | None) -> tuple[str, ...]:
    """Check labels, and name the classes.

    Args:
        where: the source of the labels, for messages.
        labels: int64 (N,).
        classes: names of the classes; None names them "0", "1", ... up to the largest label.

    Raises:
        UserError: there are no labels, or one is negative or has no class.
    """
    if len(labels) == 0:
        raise UserError(where, "holds no images", code="too_few")
    names = classes or tuple(str(index) for index in range(int(labels.max()) + 1))
    wrong = ((labels < 0) | (labels >= len(names))).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            where, f"label {int(labels[row])} of row {row} is not between 0 and {len(names) - 1}", code="out_of_range"
        )
    return names
