"""Atomic files: written to a temporary file, flushed to disk, then renamed."""

from __future__ import annotations

import gzip
import json
import os
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espalier.nas.errors import CannotWrite, UserError
from espalier.nas.scratch import own, remove_abandoned


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, moved onto `path` when the block ends without an error.

    Readers see the old file or the new one, never a part of it. What a killed writer left is removed by the next one.
    Where `path` is a link, the file that it leads to is replaced.

    Args:
        path: the file to write; its folder is created if needed.

    Raises:
        CannotWrite: the folder cannot be written or the disk is full; `path` keeps its old content.
        UserError: `path` is a device, a pipe or a folder, which is never replaced.
    """
    check_replaceable(path)
    path = path.resolve() if path.is_symlink() else path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent, f".{path.name}.", ".tmp")
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise CannotWrite(path, error) from error
    os.close(handle)
    temporary = Path(name)
    owned = own(temporary)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise CannotWrite(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
        if owned is not None:
            os.close(owned)


def check_replaceable(path: Path, *, where: str | None = None) -> None:
    """Check that a file to write does not exist, or is a plain file.

    Args:
        path: the file; links are followed.
        where: the key or option that holds the path, for messages; by default the path itself.

    Raises:
        UserError: it is a device, a pipe, a socket or a folder.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # there is none: whether it can be created shows when it is
        return
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no plain file (a device, a pipe or a socket)"
        subject = "" if where is None else f"{path} "
        raise UserError(where or str(path), f"{subject}is {kind} and cannot be written as a file", code="not_writable")


def check_writable_place(path: Path, *, where: str, folder: bool) -> None:
    """Check before long work that a file or folder can be written.

    Args:
        path: to write.
        where: the key or option that holds the path.
        folder: whether it is to be a folder.

    Raises:
        UserError: something else is there, or its folder cannot be written.
    """
    if folder and path.exists() and not path.is_dir():
        raise UserError(where, f"{path} is no folder", code="not_writable")
    if not folder:
        check_replaceable(path, where=where)
    place = path if folder else path.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise UserError(where, f"{path} cannot be written: {place} is read-only or no folder", code="not_writable")


def inside(folder: Path, name: str, *, where: str) -> Path:
    """The path of a file that another file in the same folder names.

    Args:
        folder: that holds both.
        name: of the file, relative to the folder.
        where: the file or key that holds the name.

    Raises:
        UserError: it leads out of the folder, as an absolute path, by `..` or by a link.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(where, f"{name} is outside the folder {folder}", code="unsupported")
    return path


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically (see `atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` as UTF-8, atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot express.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_text(path: Path, *, where: str | None = None) -> str:
    """The text of a UTF-8 file, decompressed if its name ends in `.gz`.

    Args:
        path: the file.
        where: the key that holds the path, for messages; by default the path itself.

    Raises:
        UserError: the file is missing, damaged or not text.
    """
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        subject = "" if where is None else f"{path} "
        raise UserError(where or str(path), f"{subject}cannot be read ({error})", code="unreadable") from error


def read_json(path: Path) -> Any:
    """The JSON value in `path`.

    Raises:
        UserError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(str(path), "no such file", code="not_found") from error
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror or error}", code="unreadable") from error
    except (ValueError, RecursionError) as error:
        raise UserError(str(path), f"not valid JSON ({error})", code="unreadable") from error


def is_file(path: Path) -> bool:
    """Whether a text that may be anything is the path of a file: one that is too long for a path is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
