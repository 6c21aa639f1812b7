"""Where a study is kept: a journal in the run folder, or any database that Optuna can reach."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import BaseJournalBackend

from espalier.nas.errors import CannotWrite, UserError

if TYPE_CHECKING:
    from io import BufferedRandom


class RunJournal(BaseJournalBackend):
    """An append-only file of one JSON line for each change, written by the one process that owns the run folder.

    Optuna's own file journal takes a lock file and waits for the disk at every change, several times a trial; the
    run folder's lock makes the first needless, and surviving a kill does not need the second: what has been handed
    to the kernel stays when the process dies.

    A line that was cut off, by a kill or a full disk, is removed when the file is opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: BufferedRandom = path.open("a+b")
            self._logs = self._read_whole_lines()
        except OSError as error:
            raise CannotWrite(self._path, error) from error

    def _read_whole_lines(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        try:
            logs = [json.loads(line) for line in content[:whole].splitlines()]
        except ValueError as error:
            raise UserError(str(self._path), f"damaged study ({error})", code="unreadable") from error
        for number, log in enumerate(logs, start=1):
            if not isinstance(log, dict) or "op_code" not in log:
                raise UserError(
                    str(self._path), f"damaged study (line {number} is not a change of a study)", code="unreadable"
                )
        return logs

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The changes from the given number on."""
        return iter(self._logs[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add changes to the end."""
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        try:
            self._file.write(("\n".join(lines) + "\n").encode())
            self._file.flush()
        except OSError as error:
            raise CannotWrite(self._path, error) from error
        self._logs.extend(json.loads(line) for line in lines)


def open_storage(url: str | None, path: Path) -> BaseStorage:
    """Optuna storage at `url`, or embedded in the file `path` where there is no URL.

    Raises:
        UserError: the database cannot be reached, or the file is damaged.
    """
    if url is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        journal = RunJournal(path)
        try:
            return JournalStorage(journal)
        except (LookupError, AssertionError, TypeError, ValueError) as error:  # the journal makes no sense
            raise UserError(str(path), f"damaged study ({type(error).__name__}: {error})", code="unreadable") from error
    try:
        return get_storage(url)
    except Exception as error:  # every database driver raises its own kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError("search.storage", f"{url}: {reason}", code="unavailable") from error
