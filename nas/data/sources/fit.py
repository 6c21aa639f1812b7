"""Making images fit: into memory, into one size, and labels into the classes."""

from __future__ import annotations

import torch
from torch import Tensor

from espalier.nas.errors import UserError

MEMORY_SHARE = 0.8


def require_memory(size_bytes: int, subject: str) -> None:
    """Refuse what needs more than 80 % of the available memory; `subject` is said of it: "5 images need"."""
    import psutil

    available_bytes = psutil.virtual_memory().available
    if size_bytes > MEMORY_SHARE * available_bytes:
        raise UserError(
            "data.size",
            f"{subject} {size_bytes / 2**30:.1f} GiB and only {available_bytes / 2**30:.1f} GiB of "
            "memory are available; give a smaller size",
            code="out_of_range",
        )


def resize(pixels: Tensor, size: int | None) -> Tensor:
    """uint8 (N, C, H, W) to (N, C, size, size), bilinear with antialiasing; as they are without a size."""
    if size is None or tuple(pixels.shape[2:]) == (size, size):
        return pixels
    require_memory(pixels.shape[0] * pixels.shape[1] * size * size, f"{len(pixels)} images need")
    return torch.nn.functional.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)


def check_labels(where: str, labels: Tensor, classes: tuple[str, ...] | None) -> tuple[str, ...]:
    """The classes of `labels` (int64 (N,)): those given, or "0", "1", ... up to the largest label.

    Raises:
        UserError: no labels, or one that is negative or has no class.
    """
    if len(labels) == 0:
        raise UserError(where, "holds no images", code="too_few")
    names = classes or tuple(str(index) for index in range(int(labels.max()) + 1))
    wrong = ((labels < 0) | (labels >= len(names))).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise UserError(
            where, f"label {int(labels[row])} of row {row} is outside 0 to {len(names) - 1}", code="out_of_range"
        )
    return names
