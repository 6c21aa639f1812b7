"""Images on a device as bytes, from which one gather takes a batch of random crops."""

from __future__ import annotations

import torch
from torch import Tensor


class Pool:
    """Images with a border of zeros, laid out flat.

    A crop of a padded image is the image's memory read from a shifted start, `top` rows and `left` columns further.
    The bytes beyond the end of a row or of the image are read too, and then cut off. So a whole batch of crops is one
    gather of rows from overlapping windows, at the speed of memory.

    Args:
        pixels: uint8 (N, C, H, W); used in place without padding, copied with padding.
        padding: width of the border in pixels.
    """

    def __init__(self, pixels: Tensor, padding: int) -> None:
        count, self._channels, self._height, self._width = pixels.shape
        self._padded = (self._channels, self._height + 2 * padding, self._width + 2 * padding)
        self._length = self._channels * self._padded[1] * self._padded[2]
        if padding == 0:
            flat = pixels.contiguous().flatten()
        else:
            furthest = 2 * padding * self._padded[2] + 2 * padding
            flat = pixels.new_zeros(count * self._length + furthest)
            inner = flat[: count * self._length].view(count, *self._padded)
            inner[:, :, padding : padding + self._height, padding : padding + self._width] = pixels
        self._windows = flat.unfold(0, self._length, 1)

    def crops(self, indices: Tensor, top: Tensor | int = 0, left: Tensor | int = 0) -> Tensor:
        """Crops of the images at `indices`.

        Args:
            indices: int64 (B,), on the pool's device, as the next two.
            top: int64 (B,), 0 to 2 * padding: the crop's first row in the padded image.
            left: int64 (B,), 0 to 2 * padding: its first column.

        Returns:
            uint8 (B, C, H, W), not contiguous if there is padding.
        """
        starts = indices * self._length + top * self._padded[2] + left
        images = torch.index_select(self._windows, 0, starts).view(-1, *self._padded)
        return images[:, :, : self._height, : self._width]
