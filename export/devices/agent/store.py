"""The files that a host has sent, by their hash, in a folder that goes when the connection goes."""

from __future__ import annotations

import base64
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from export.devices.agent.errors import Refused

PREFIX = "espalier-"
ALIVE = ".alive"


class Store:
    """Files named `<sha256>.onnx` in the folder that the agent was started in.

    Args:
        folder: of this connection alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._alive = _hold(folder / ALIVE)
        for other in folder.parent.glob(f"{PREFIX}*"):
            if other != folder and _is_abandoned(other):
                shutil.rmtree(other, ignore_errors=True)

    def has(self, sha256: str) -> dict[str, Any]:
        """`{"path": ...}` of the file with that hash, None where it was not sent."""
        path = self._path(sha256)
        return {"path": str(path) if path.exists() else None}

    def put(self, sha256: str, data: str, *, first: bool, last: bool) -> dict[str, Any]:
        """Take one piece (base64) of a file; it has its name once it is whole.

        Raises:
            Refused: the disk is full, or the file is not the one that was announced.
        """
        partial = self._path(sha256).with_suffix(".part")
        try:
            with partial.open("wb" if first else "ab") as file:
                file.write(base64.b64decode(data))
            if not last:
                return {}
            if hashlib.sha256(partial.read_bytes()).hexdigest() != sha256:
                raise Refused("device", "a file arrived damaged")
            partial.replace(self._path(sha256))
        except OSError as error:
            partial.unlink()
            raise Refused("device", f"cannot keep the file in {self._folder} ({error.strerror})") from error
        return self.has(sha256)

    def clear(self) -> None:
        """Remove everything that was sent, and the folder."""
        if self._alive is not None:
            self._alive.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, sha256: str) -> Path:
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise Refused("device", f"{sha256!r} is no hash of a file")
        return self._folder / f"{sha256}.onnx"


def _hold(path: Path) -> Any:
    """An open, locked file: its lock says that this process is alive, and falls with it. None on Windows."""
    try:
        import fcntl
    except ImportError:
        return None
    file = path.open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _is_abandoned(folder: Path) -> bool:
    """Whether the agent that made a folder was killed before it could remove it."""
    try:
        import fcntl

        with (folder / ALIVE).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # nobody can tell; another user's; alive
        return False
    return True


def temporary_folder() -> Path:
    """Where agents put their folders."""
    return Path(tempfile.gettempdir())
