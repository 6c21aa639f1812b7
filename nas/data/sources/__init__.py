"""Sources of images: one file for each source, and a table of their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from espalier.nas.data.balance import Limit
from espalier.nas.data.images import Images
from espalier.nas.data.sources import digits, folder, npz, parquet
from espalier.nas.data.sources.own import OwnSource
from espalier.nas.errors import UserError

Loader = Callable[[Path | None, Path | None, int | None, Limit], tuple[Images, Images | None]]

SOURCES: Mapping[str, Loader] = {
    "digits": digits.load,
    "folder": folder.load,
    "npz": npz.load,
    "parquet": parquet.load,
}


def load(
    source: str | OwnSource,
    *,
    path: Path | None = None,
    test_path: Path | None = None,
    size: int | None = None,
    limit: Limit = Limit(),  # noqa: B008 - immutable
) -> tuple[Images, Images | None]:
    """The images of a source: the pool to train and select on, and the source's own test set if it has one.

    Args:
        source: a name in `SOURCES`, or a function of the user's.
        path: the file or folder to read; None for `digits`.
        test_path: the test images, if they are not in `path`; replaces test images in `path`.
        size: resize every image to size x size, bilinear with antialiasing, regardless of its aspect ratio.
        limit: keep at most so many images of the pool, and of the test set, with the same proportions of classes.

    Raises:
        UserError: an unknown source; a missing or unreadable file, image or label; images of several sizes without
            `size`; more images than fit into memory; a limit too small for the classes; or test images of other
            classes, channels or sizes.
    """
    if isinstance(source, str) and source not in SOURCES:
        raise UserError("data.source", f"unknown source {source!r}", allowed=SOURCES, given=source)
    if size is not None and size < 1:
        raise UserError("data.size", f"must be at least 1 pixel, not {size}", code="out_of_range")
    for key, given in (("data.path", path), ("data.test_path", test_path)):
        if given is not None and source == "digits":
            raise UserError(key, "the source digits is built in and takes no path", code="conflict")
        if given is not None and not given.exists():
            raise UserError(key, f"{given} does not exist", code="not_found")
    if path is None and isinstance(source, str) and source != "digits":
        raise UserError("data.path", f"is missing: the source {source!r} reads a file or folder", code="missing")
    read = SOURCES[source] if isinstance(source, str) else source
    pool, test = read(path, test_path, size, limit)
    if test is not None:
        _check_test(pool, test, "data.path" if test_path is None else "data.test_path")
    return pool, test


def _check_test(pool: Images, test: Images, where: str) -> None:
    if len(pool.classes) != len(test.classes):
        raise UserError(
            where,
            f"the training images have {len(pool.classes)} classes, the test images {len(test.classes)}",
            code="mismatch",
        )
    for ours, theirs in zip(pool.classes, test.classes, strict=True):
        if ours != theirs:
            raise UserError(
                where,
                f"the {len(pool.classes)} classes have different names: {ours!r} in training, {theirs!r} in test",
                code="mismatch",
            )
    if pool.image_shape != test.image_shape:
        raise UserError(
            where,
            f"the training images are {_shape(pool)} (channels x height x width), the test images {_shape(test)}",
            code="mismatch",
        )


def _shape(images: Images) -> str:
    return "x".join(str(extent) for extent in images.image_shape)
