"""Temporary files that belong to a living process: what a killed one left is removed by the next one."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

SETTLED_S = 60.0
"""Age from which a file without an owner is taken as left behind; a younger one may be about to get its owner."""


class ScratchFolder(tempfile.TemporaryDirectory[str]):
    """A temporary folder beside the files that are written from it.

    Its process holds a lock on it. Folders with the same prefix whose process has ended are removed first.

    Args:
        prefix: of the name, such as `.latency-`.
        dir: the folder to create it in.
    """

    def __init__(self, prefix: str, dir: Path) -> None:
        remove_abandoned(dir, prefix, "")
        super().__init__(prefix=prefix, dir=dir)
        self._owned = own(Path(self.name))

    def cleanup(self) -> None:
        """Remove the folder."""
        if self._owned is not None:
            os.close(self._owned)
            self._owned = None
        super().cleanup()


def own(path: Path) -> int | None:
    """A handle that locks a file or folder until it is closed or the process ends; None on Windows."""
    try:
        import fcntl
    except ImportError:
        return None
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # the file system has no locks: without an owner it is kept until it has settled
        os.close(handle)
        return None
    return handle


def remove_abandoned(folder: Path, prefix: str, suffix: str) -> None:
    """Remove files and folders of a pattern whose process was killed.

    Args:
        folder: where they are.
        prefix: of their names.
        suffix: of their names.
    """
    try:
        paths = [path for path in folder.iterdir() if path.name.startswith(prefix) and path.name.endswith(suffix)]
    except OSError:  # there is no such folder yet
        return
    for path in paths:
        if not _is_abandoned(path):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_abandoned(path: Path) -> bool:
    try:
        if path.is_symlink() or time.time() - path.stat().st_mtime < SETTLED_S:
            return False
        handle = own(path)
    except OSError:  # gone, or another user's
        return False
    if handle is None:
        return False
    os.close(handle)
    return True
