"""Reading images for super-resolution from a folder or a zip file."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

import torch
from torch import Tensor

from espalier.nas.checkpoint import BROKEN
from espalier.nas.data.sources.decode import DAMAGE, cause
from espalier.nas.data.sources.fit import require_memory
from espalier.nas.data.sources.walk import each_once, is_hidden
from espalier.nas.errors import UserError
from espalier.nas.super_resolution.pairs import Pair, Pairs

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
PNG_DEPTH = 24
"""Position of the bits per channel in a PNG file."""


def load_pairs(path: Path, scale: int, *, low: Path | None = None, grey: bool = False) -> Pairs:
    """All images of a folder or zip file and its nested folders, sorted by name, each at two resolutions.

    Args:
        path: the large images, such as `0001.png`; cropped at the right and bottom to a multiple of the scale.
        scale: how many times as many pixels they have on each side.
        low: the small images, `0001x2.png` or `0001.png` for `0001.png`; if None, PIL's bicubic filter makes them.
        grey: also accept grey images, as RGB with three equal channels; Set14 has some.

    Raises:
        UserError: there is no such folder or zip file, or no image in it; an image cannot be read, is not RGB with 8
            bits per channel, or is smaller than `scale`; a small image is missing or has another size; or the images
            do not fit into memory.
    """
    if scale < 2:
        raise UserError("scale", f"must be at least 2, not {scale}", code="out_of_range")
    with ExitStack() as archives, ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        large = _files(path, archives)
        small = None if low is None else _by_name(low, _files(low, archives))

        def pair(name: str) -> Pair:
            high = _decoded(large[name], grey)
            if min(high.shape[1:]) < scale:
                raise UserError(
                    large[name].where, f"is {_size(high)}, too small to be divided by {scale}", code="too_few"
                )
            if small is None:
                return Pair.degraded(name, high, scale)
            return _with_small(name, high, _small(small, name, scale, str(low)), scale, grey)

        pixels = sum(threads.map(_pixels, large.values()))
        require_memory(round(3 * pixels * (1 + 1 / scale**2)), f"{len(large)} images need")
        try:
            return Pairs(tuple(threads.map(pair, large)), path.stem)
        except UserError:
            threads.shutdown(cancel_futures=True)
            raise


@dataclass(frozen=True)
class _File:
    """An image file that is not read yet.

    Attributes:
        where: its name in messages.
        open: opens the file.
    """

    where: str
    open: Callable[[], IO[bytes]]

    @contextmanager
    def image(self) -> Iterator[tuple[Image.Image, bytes]]:
        """The image, not decoded yet, and the first bytes of the file. Every problem becomes a UserError."""
        from PIL import Image

        head = b""
        try:
            with self.open() as file:
                head = file.read(64)
                file.seek(0)
                with Image.open(file) as image:
                    yield image, head
        except (*DAMAGE, RuntimeError, Image.DecompressionBombError, *BROKEN) as error:
            problem = f"cannot be decoded as an image ({cause(head, error)})"
            raise UserError(self.where, problem, code="unreadable") from error


def _files(path: Path, archives: ExitStack) -> dict[str, _File]:
    """The images in a folder, or in a zip file that stays open with `archives`, by their path inside."""
    if not path.exists():
        raise UserError(str(path), "does not exist", code="not_found")
    if path.is_dir():
        inside = {file.relative_to(path).as_posix(): file for file in each_once([path], path).files[0]}
        found = {name: _File(str(file), partial(_opened, file)) for name, file in inside.items()}
    else:
        try:
            archive = archives.enter_context(zipfile.ZipFile(path))
        except zipfile.BadZipFile as error:
            raise UserError(str(path), "must be a folder or a zip file of images", code="unreadable") from error
        found = {name: _File(f"{path}/{name}", partial(archive.open, name)) for name in archive.namelist()}
    images = {name: file for name, file in sorted(found.items()) if _is_image(PurePosixPath(name))}
    if not images:
        raise UserError(str(path), f"contains no images ({', '.join(SUFFIXES)})", code="too_few")
    return images


def _opened(file: Path) -> IO[bytes]:
    return file.open("rb")


def _is_image(name: PurePosixPath) -> bool:
    return name.suffix.lower() in SUFFIXES and not any(map(is_hidden, name.parts))


def _decoded(file: _File, grey: bool) -> Tensor:
    """uint8 RGB `(3, H, W)`, turned as its EXIF orientation says."""
    import numpy as np
    from PIL import ImageOps

    with file.image() as (image, head):
        deep = image.format == "PNG" and head[PNG_DEPTH] == 16  # PIL would silently halve the depth
        if deep or image.mode not in (("RGB", "L") if grey else ("RGB",)):
            kind = "has 16 bits" if deep else f"has mode {image.mode}"
            raise UserError(file.where, f"must be RGB with 8 bits per channel, but {kind}", code="unsupported")
        turned = ImageOps.exif_transpose(image)
        pixels = np.array(turned if turned.mode == "RGB" else turned.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _pixels(file: _File) -> int:
    """The number of pixels according to the file's header."""
    with file.image() as (image, _):
        return image.width * image.height


def _by_name(folder: Path, files: Mapping[str, _File]) -> dict[str, _File]:
    """The files by their names without folder and suffix."""
    named: dict[str, _File] = {}
    for name, file in files.items():
        stem = PurePosixPath(name).stem
        if stem in named:
            raise UserError(
                str(folder),
                f"contains two images with the name {stem}: {named[stem].where} and {file.where}",
                code="conflict",
            )
        named[stem] = file
    return named


def _small(small: Mapping[str, _File], name: str, scale: int, folder: str) -> _File:
    stem = PurePosixPath(name).stem
    for candidate in (f"{stem}x{scale}", stem):
        if candidate in small:
            return small[candidate]
    raise UserError(folder, f"contains no {stem}x{scale}.png for {name}", code="not_found")


def _with_small(name: str, high: Tensor, file: _File, scale: int, grey: bool) -> Pair:
    low = _decoded(file, grey)
    height, width = (side // scale for side in high.shape[1:])
    if tuple(low.shape[1:]) != (height, width):
        raise UserError(
            file.where, f"is {_size(low)}, but 1/{scale} of {name} ({_size(high)}) is {width}x{height}", code="mismatch"
        )
    return Pair(name, low, high[:, : scale * height, : scale * width].contiguous())


def _size(image: Tensor) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"
