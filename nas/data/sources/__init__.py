"""Where images come from: one file per source, one line per source in the table of names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from espalier.nas.data.balance import Limit
from espalier.nas.data.images import Images
from espalier.nas.data.sources import digits, folder, npz, parquet
from espalier.nas.errors import UserError

Loader = Callable[[Path | None, Path | None, int | None, Limit], tuple[Images, Images | None]]

SOURCES: Mapping[str, Loader] = {
    "digits": digits.load,
    "folder": folder.load,
    "npz": npz.load,
    "parquet": parquet.load,
}


def load(
    source: str,
    *,
    path: Path | None = None,
    test_path: Path | None = None,
    size: int | None = None,
    limit: Limit = Limit(),  # noqa: B008 - immutable
) -> tuple[Images, Images | None]:
    """The images of a source: the pool to train and select on, and its own test set where it has one.

    Args:
        source: a name in `SOURCES`.
        path: the file or folder to read; none for digits.
        test_path: the test images, where `path` does not hold them; goes before those in `path`.
        size: resize every image to size x size, bilinear with antialiasing; the aspect ratio is not kept.
        limit: keep only so many images of the pool, and of the test set, with the same balance of classes.

    Raises:
        UserError: unknown source, missing or unreadable file, image or label, images of several sizes without
            `size`, more than memory holds, a limit too small for the classes, or test images of other classes,
            channels or size.
    """
    if source not in SOURCES:
        raise UserError("data.source", f"no source {source!r}", allowed=SOURCES, given=source)
    if size is not None and size < 1:
        raise UserError("data.size", f"must be at least 1 pixel, not {size}", code="out_of_range")
    for key, given in (("data.path", path), ("data.test_path", test_path)):
        if given is not None and source == "digits":
            raise UserError(key, "the digits are built in and take no path", code="conflict")
        if given is not None and not given.exists():
            raise UserError(key, f"{given} does not exist", code="not_found")
    if path is None and source != "digits":
        raise UserError("data.path", f"missing: the source {source!r} reads a file or folder", code="missing")
    pool, test = SOURCES[source](path, test_path, size, limit)
    if test is not None:
        _check_test(pool, test, "data.path" if test_path is None else "data.test_path")
    return pool, test


def _check_test(pool: Images, test: Images, where: str) -> None:
    if len(pool.classes) != len(test.classes):
        raise UserError(
            where,
            f"training images of {len(pool.classes)} classes, test images of {len(test.classes)}",
            code="mismatch",
        )
    for ours, theirs in zip(pool.classes, test.classes, strict=True):
        if ours != theirs:
            raise UserError(
                where,
                f"both have {len(pool.classes)} classes, of other names: {ours!r} in training, {theirs!r} in test",
                code="mismatch",
            )
    if pool.image_shape != test.image_shape:
        raise UserError(
            where,
            f"training images of {_shape(pool)} (channels x height x width), test images of {_shape(test)}",
            code="mismatch",
        )


def _shape(images: Images) -> str:
    return "x".join(str(extent) for extent in images.image_shape)
