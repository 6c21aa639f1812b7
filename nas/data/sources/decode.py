"""Decoding image files with PIL."""

from __future__ import annotations

import io
import logging
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from espalier.nas.data.balance import Limit
from espalier.nas.data.images import Images
from espalier.nas.data.sources.fit import require_memory
from espalier.nas.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

_log = logging.getLogger(__name__)

DAMAGE = (OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, OverflowError, struct.error, zlib.error)
"""What PIL's decoders raise for damaged files."""

# For smaller images, passing the interpreter lock around costs more than several cores save.
THREADED_BYTES = 8192


@dataclass(frozen=True)
class Encoded:
    """Labelled images that are not decoded yet.

    Attributes:
        name: of the images in reports.
        labels: int64 (N,).
        classes: names of the classes.
        read: returns the bytes of the i-th image.
        where: returns the name of the i-th image in messages.
        notes: what the user may not expect, such as files that are not read.
    """

    name: str
    labels: Tensor
    classes: tuple[str, ...]
    read: Callable[[int], bytes]
    where: Callable[[int], str]
    notes: tuple[str, ...] = ()

    def limited(self, limit: Limit) -> Encoded:
        """The images that a limit keeps."""
        rows = limit.rows(self.labels, self.classes)
        return Encoded(
            self.name,
            self.labels[rows],
            self.classes,
            read=lambda row: self.read(int(rows[row])),
            where=lambda row: self.where(int(rows[row])),
            notes=self.notes,
        )


def decode(sets: Sequence[Encoded], size: int | None, limit: Limit) -> list[Images]:
    """Decode several sets to one size. They become grey if every image is grey (mode L or 1), else RGB.

    Args:
        sets: at least one, none of them empty.
        size: resize to size x size, bilinear with antialiasing.
        limit: applies to each set.

    Raises:
        UserError: an image cannot be decoded or would lose depth, images have several sizes and no `size` is given, or
            they do not fit into memory.
    """
    for note in (note for one in sets for note in one.notes):
        _log.warning(note)
    sets = [one.limited(limit) for one in sets]
    first, first_where = _pixels(sets[0], 0, size)[0], sets[0].where(0)
    count = sum(len(one.labels) for one in sets)
    require_memory(first.size * count, f"{count} images need")

    def fill(one: Encoded, pixels: NDArray[np.uint8], rows: range) -> bool:
        all_grey = True
        for row in rows:
            image, grey = _pixels(one, row, size)
            if image.shape != first.shape:
                raise UserError(
                    "data.size",
                    f"the images have several sizes: {first_where} {_size(first)} and {one.where(row)} "
                    f"{_size(image)} (width x height); give a size to bring all to it",
                    code="mismatch",
                )
            pixels[row] = image.transpose(2, 0, 1)
            all_grey &= grey
        return all_grey

    height, width, _ = first.shape
    workers = (os.cpu_count() or 1) if len(sets[0].read(0)) >= THREADED_BYTES else 1
    decoded, grey = [], True
    with ThreadPoolExecutor(workers) as threads:
        for one in sets:
            pixels = torch.empty(len(one.labels), 3, height, width, dtype=torch.uint8)
            parts = [range(at, min(at + 64, len(pixels))) for at in range(0, len(pixels), 64)]
            try:
                # A list: all() would stop at the first coloured part without waiting for the others.
                grey &= all(list(threads.map(partial(fill, one, pixels.numpy()), parts)))
            except UserError:
                threads.shutdown(cancel_futures=True)
                raise
            decoded.append(pixels)
    if grey:
        decoded = [pixels[:, :1].contiguous() for pixels in decoded]
    return [Images(pixels, one.labels, one.classes, one.name) for pixels, one in zip(decoded, sets, strict=True)]


def _pixels(one: Encoded, row: int, size: int | None) -> tuple[NDArray[np.uint8], bool]:
    """One image as RGB uint8 (H, W, 3), and whether it was grey."""
    import numpy as np
    from PIL import Image

    picture = upright(one.read(row), one.where(row))
    rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
    if size is not None and rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgb), picture.mode in ("L", "1")


def upright(content: bytes, where: str) -> Image.Image:
    """A decoded image in the mode of its file, turned as its EXIF orientation says.

    Args:
        content: of the file.
        where: its name in messages.

    Raises:
        UserError: it cannot be decoded, or has more than 8 bits per channel.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as image:
            mode = image.mode
            if mode == "F" or mode.startswith("I"):
                problem = f"has more than 8 bits per channel (mode {mode}), which is not supported"
                raise UserError(where, problem, code="unsupported")
            image.load()
            return ImageOps.exif_transpose(image)
    except DAMAGE as error:
        raise UserError(where, f"cannot be decoded as an image ({cause(content, error)})", code="unreadable") from error
    except Image.DecompressionBombError as error:
        raise UserError(where, f"cannot be decoded as an image ({error})", code="unreadable") from error


def cause(content: bytes, error: Exception) -> str:
    """Why bytes are no image, as far as they tell.

    Args:
        content: the first bytes, or all.
        error: what PIL says.
    """
    from PIL import UnidentifiedImageError

    if not content:
        return "the file is empty"
    if content.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; fetch the file with git lfs pull"
    if content.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        return "it is a web page"
    if isinstance(error, UnidentifiedImageError):  # whose message names an object in memory
        return "its format is unknown"
    return str(error) or type(error).__name__


def _size(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
