"""Image files in a folder for each class."""

from __future__ import annotations

from pathlib import Path

import torch

from espalier.nas.data.balance import Limit
from espalier.nas.data.images import Images
from espalier.nas.data.sources.decode import Encoded, decode
from espalier.nas.errors import UserError


def load(path: Path | None, test_path: Path | None, size: int | None, limit: Limit) -> tuple[Images, Images | None]:
    """Images in `path`/train/<class>/ with an optional `path`/test/ or else `path`/val/, or in `path`/<class>/.

    Class names are the sorted names of the folders; files in nested folders belong to their class.

    Args:
        path: the root folder.
        test_path: a folder with a folder for each class, which replaces test images in `path`.
        size: see `espalier.nas.data.load`.
        limit: see `espalier.nas.data.load`.
    """
    assert path is not None
    train = path / "train"
    if train.is_dir():
        test_path = test_path or next((path / n for n in ("test", "val") if (path / n).is_dir()), None)
    else:
        train = path
    sets = [_encoded(root, path.resolve().name) for root in (train, test_path) if root is not None]
    pool, *rest = decode(sets, size, limit)
    return pool, rest[0] if rest else None


def _encoded(root: Path, name: str) -> Encoded:
    from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

    if not root.is_dir():
        raise UserError(str(root), "must be a folder with a folder for each class", code="not_found")
    try:
        classes, index = find_classes(root)
        samples = make_dataset(root, index, extensions=IMG_EXTENSIONS)
    except FileNotFoundError as error:
        raise UserError(str(root), str(error), code="too_few") from error
    files = [Path(file) for file, _ in samples]
    return Encoded(
        name=name,
        labels=torch.tensor([label for _, label in samples]),
        classes=tuple(classes),
        read=lambda row: files[row].read_bytes(),
        where=lambda row: str(files[row]),
    )
