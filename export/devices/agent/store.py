"""The files that a host has sent, in one folder for each network, all removed when the connection ends."""

from __future__ import annotations

import base64
import hashlib
import shutil
from pathlib import Path
from typing import Any, List, Tuple  # noqa: UP035 - Python 3.8

from espalier.export.devices.agent.errors import Refused

PREFIX = "espalier-"
ALIVE = ".alive"


class Store:
    """Networks in the folder that the agent was started in: `<key>/<name>`, or `<key>.part` during the transfer.

    A network is one or several files: weights may be stored beside the ONNX file, which refers to them by name.

    Args:
        folder: used only by this connection.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._alive = _hold(folder / ALIVE)
        for other in folder.parent.glob(f"{PREFIX}*"):
            if other != folder and _is_abandoned(other):
                shutil.rmtree(other, ignore_errors=True)

    def put(self, key: str, name: str, data: str, *, first: bool) -> dict[str, Any]:
        """Store one piece of a file of a network.

        Args:
            key: SHA-256 that identifies the network.
            name: name of the file, relative to the network's folder.
            data: the piece, in base64.
            first: whether it is the first piece of the file.

        Raises:
            Refused: the disk is full, or the name leads out of the folder.
        """
        partial = self._path(key).with_suffix(".part")
        path = partial / _inside(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb" if first else "ab") as file:
                file.write(base64.b64decode(data))
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            problem = f"cannot store the file in {self._folder} ({error.strerror})"
            raise Refused("device", problem, code="not_writable") from error
        return {}

    def keep(self, key: str, files: List[Tuple[str, str]]) -> dict[str, Any]:  # noqa: UP006 - Python 3.8
        """Complete a network whose files have all been sent.

        Args:
            key: SHA-256 that identifies the network.
            files: name and SHA-256 of each file.

        Returns:
            `{"path": ...}` of the first file.

        Raises:
            Refused: a file differs from its SHA-256.
        """
        whole = self._path(key)
        partial = whole.with_suffix(".part")
        for name, sha256 in files:
            path = partial / _inside(name)
            if not path.is_file() or _hash(path) != sha256:
                shutil.rmtree(partial, ignore_errors=True)
                raise Refused("device", f"{name} arrived damaged", code="failed")
        shutil.rmtree(whole, ignore_errors=True)
        partial.replace(whole)
        return {"path": str(whole / files[0][0])}

    def drop(self, key: str) -> dict[str, Any]:
        """Remove a network."""
        shutil.rmtree(self._path(key), ignore_errors=True)
        return {}

    def clear(self) -> None:
        """Remove everything that was sent, and the folder."""
        if self._alive is not None:
            self._alive.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, key: str) -> Path:
        if len(key) != 64 or not set(key) <= set("0123456789abcdef"):
            raise Refused("device", f"{key!r} is not the hash of a network", code="invalid")
        return self._folder / key


def _inside(name: str) -> Path:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        raise Refused("device", f"{name!r} leads out of the network's folder", code="invalid")
    return path


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            digest.update(piece)
    return digest.hexdigest()


def _hold(path: Path) -> Any:
    """An open, locked file: the lock shows that this process is alive, and is released with it. None on Windows."""
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
    except (ImportError, OSError):  # unknown, another user's, or alive
        return False
    return True
