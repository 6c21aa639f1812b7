"""Image files in a folder for each class."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from espalier.nas.data.balance import Limit
from espalier.nas.data.images import Images
from espalier.nas.data.sources.decode import Encoded, decode
from espalier.nas.data.sources.split_names import SPLIT_NAMES, TRAIN, held_back
from espalier.nas.data.sources.walk import each_once, link_target, visible
from espalier.nas.errors import UserError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Of image files, in any letter case."""


def load(path: Path | None, test_path: Path | None, size: int | None, limit: Limit) -> tuple[Images, Images | None]:
    """Images in `path`/train/<class>/ with an optional `path`/test/ or else `path`/val/, or in `path`/<class>/.

    Class names are the sorted names of the folders; files in nested folders belong to their class. The letter case of
    `train`, `test` and `val` does not matter. Hidden files and folders are left out. Each file is read once, however
    many links lead to it, and a link out of the folder is refused.

    Args:
        path: the root folder.
        test_path: a folder with a folder for each class, which replaces test images in `path`.
        size: see `espalier.nas.data.load`.
        limit: see `espalier.nas.data.load`.
    """
    assert path is not None
    pool, *rest = decode(encoded(path, test_path), size, limit)
    return pool, rest[0] if rest else None


def encoded(path: Path, test_path: Path | None) -> list[Encoded]:
    """The training images, and the test images if there are any, not decoded yet; see `load`."""
    name = path.resolve().name
    splits = _splits(path)
    if not splits:
        sets = [_encoded(path, path, name)]
    else:
        if TRAIN not in splits:
            found = ", ".join(str(folder.name) for folder in splits.values())
            problem = f"has {found}, but no folder train with a folder for each class"
            raise UserError(str(path), problem, code="missing")
        sets = [_encoded(splits[TRAIN], path, name)]
        test = None if test_path is not None else held_back(splits)
        if test is not None:
            sets.append(_encoded(splits[test], path, name))
    if test_path is not None:
        sets.append(_encoded(test_path, test_path, name))
    return sets


def _splits(path: Path) -> dict[str, Path]:
    """The folders of the splits by the names in `SPLIT_NAMES`; none where the classes are in the folder itself.

    A folder of such a name without folders inside holds images: it is a class, as `train` beside `bus` and `tram`,
    unless all folders have such names.
    """
    folders = _folders(path)
    named = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    splits: dict[str, Path] = {}
    for folder in named if len(named) == len(folders) else [folder for folder in named if _folders(folder)]:
        split = SPLIT_NAMES[folder.name.lower()]
        if split in splits:
            problem = f"has both {splits[split].name} and {folder.name}, which are the same split"
            raise UserError(str(path), problem, code="conflict")
        splits[split] = folder
    return splits


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise UserError(str(path), "must be a folder with a folder for each class", code="not_found")
    return [entry for entry in visible(path) if entry.is_dir()]


def _encoded(root: Path, inside: Path, name: str) -> Encoded:
    """The images of one split.

    Args:
        root: with a folder for each class.
        inside: what links must not lead out of.
        name: of the images in reports.
    """
    if root.is_symlink() and root != inside:
        link_target(root, inside)
    folders = _folders(root)
    if not folders:
        raise UserError(str(root), _no_classes(root), code="too_few")
    walked = each_once(folders, inside)
    kept = [[file for file in files if file.suffix.lower() in SUFFIXES] for files in walked.files]
    _check_classes(root, folders, kept)
    files = [file for some in kept for file in some]
    labels = [label for label, some in enumerate(kept) for _ in some]
    return Encoded(
        name=name,
        labels=torch.tensor(labels),
        classes=tuple(_class_name(folder) for folder in folders),
        read=lambda row: files[row].read_bytes(),
        where=lambda row: str(files[row]),
        notes=_notes(root, walked.repeated, [file for some in walked.files for file in some]),
    )


def _no_classes(root: Path) -> str:
    images = sum(entry.suffix.lower() in SUFFIXES for entry in visible(root))
    return f"has no folders (images outside of folders: {images}); put the images of each class into a folder"


def _check_classes(root: Path, folders: Sequence[Path], files: Sequence[Sequence[Path]]) -> None:
    """Raises UserError where a class has no images, or where there is a single one with classes inside."""
    empty = [folder.name for folder, some in zip(folders, files, strict=True) if not some]
    if empty:
        problem = f"has no images ({', '.join(SUFFIXES)}) in {', '.join(map(repr, empty[:5]))}"
        more = f" and {len(empty) - 5} further folders" if len(empty) > 5 else ""
        raise UserError(str(root), problem + more, code="too_few")
    names = Counter(map(_class_name, folders))
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(str(root), f"has two folders that are called {twice[0]!r}", code="conflict")
    if len(folders) > 1:
        return
    inner = {file.relative_to(folders[0]).parts[0] for file in files[0] if file.parent != folders[0]}
    if len(inner) > 1 and all(file.parent != folders[0] for file in files[0]):
        problem = f"has one class, {folders[0].name!r}, with {len(inner)} folders inside; is {folders[0]} meant?"
        raise UserError(str(root), problem, code="mismatch")


def _class_name(folder: Path) -> str:
    """The name of a folder in one Unicode form: macOS writes accents as characters of their own.

    Raises:
        UserError: it is not UTF-8, so that no report could hold it.
    """
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(folder.name).decode(errors="backslashreplace")
        raise UserError(str(folder.parent), f"has a folder whose name is not UTF-8: {shown}", code="invalid") from error
    return unicodedata.normalize("NFC", folder.name)


def _notes(root: Path, repeated: int, files: Sequence[Path]) -> tuple[str, ...]:
    notes = []
    if repeated:
        notes.append(f"{root}: {repeated} links to files of the same folder are not read a second time")
    others = Counter(file.suffix.lower() or "without suffix" for file in files if file.suffix.lower() not in SUFFIXES)
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(5))
        notes.append(f"{root}: {others.total()} files are not read as images ({kinds})")
    return tuple(notes)
