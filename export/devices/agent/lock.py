"""One timing at a time of each user on a device: two at once would compete with each other."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator  # noqa: UP035 - Python 3.8

from espalier.export.devices.agent.errors import Refused

FILE = "timing.lock"
POLL_S = 0.1
MAX_COMMAND = 200
"""Characters of the holder's command that are told."""


@contextmanager
def whole_device(wait_s: float, alive: Callable[[], Any], tell: Callable[[str], Any]) -> Iterator[None]:
    """Hold the device exclusively, after waiting for other processes of this user. No lock on Windows.

    The lock is an `flock` on a file in the user's own folder, so no other user can take it, and it is released when
    its process ends, however it ends.

    Args:
        wait_s: longest time to wait.
        alive: called while waiting.
        tell: called once, with the process that is waited for, as soon as there is one.

    Raises:
        Refused: another process has been timing for `wait_s`, or the lock's file cannot be opened.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    until = time.monotonic() + wait_s
    with _open() as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = _read(file)
                if not told:
                    tell(f"waiting up to {wait_s:g} s for {holder}, which is timing on this device")
                    told = True
                if time.monotonic() > until:
                    raise Refused("device", f"{holder} has been timing on it for {wait_s:g} s", code="busy") from None
                time.sleep(POLL_S)
                alive()
        _write(file, _description())
        try:
            yield
        finally:
            _write(file, "")


def lock_folder() -> Path:
    """The user's folder for files of the running system, `$XDG_RUNTIME_DIR`; else one in the temporary folder."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_absolute() and os.access(runtime, os.W_OK):
        return Path(runtime) / "espalier"
    return Path(tempfile.gettempdir()) / f"espalier-lock-{os.getuid()}"


def _open() -> Any:
    folder = lock_folder()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = os.lstat(str(folder))
        if folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o022:
            problem = f"{folder} belongs to user {found.st_uid} or can be written by others; remove it"
            raise Refused("device", problem, code="not_writable")
        # Never through a link, never waiting for the other end of a pipe.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(str(folder / FILE), flags, 0o600)
    except OSError as error:
        problem = f"its timing lock {folder / FILE} cannot be opened ({error.strerror})"
        raise Refused("device", problem, code="not_writable") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Refused("device", f"its timing lock {folder / FILE} is no plain file; remove it", code="not_writable")
    return os.fdopen(handle, "r+b", buffering=0)


def _description() -> str:
    """This process's parent, which asked for the timing, and its command where the system tells it."""
    pid = os.getppid()
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        command = ""
    return f"process {pid}" + (f" ({command[:MAX_COMMAND]})" if command else "")


def _read(file: Any) -> str:
    file.seek(0)
    return file.read(4 * MAX_COMMAND).decode(errors="replace") or "another process"


def _write(file: Any, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text.encode())
