"""Storage of a study: a journal in the run folder, or any database that Optuna supports."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import BaseJournalBackend

from espalier.nas.errors import CannotWrite, UserError

if TYPE_CHECKING:
    from io import BufferedRandom


_log = logging.getLogger(__name__)


class RunJournal(BaseJournalBackend):
    """An append-only file with one JSON line for each change, written by the process that owns the run folder.

    Optuna's own file journal takes a lock file and syncs the disk at every change, several times for each trial. Here
    the run folder is locked already, and no sync is needed to survive a killed process: what the kernel has received
    is written all the same.

    A line that was cut off, by a kill or a full disk, is removed when the file is opened.

    Args:
        path: the file; created if needed.

    Raises:
        UserError: the file is damaged, or cannot be opened.
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
            _log.warning("%s: removed an incomplete last line", self._path)
            self._file.truncate(whole)
        try:
            logs = [json.loads(line) for line in content[:whole].splitlines()]
        except ValueError as error:
            raise UserError(str(self._path), f"the study is damaged ({error})", code="unreadable") from error
        for number, log in enumerate(logs, start=1):
            if not isinstance(log, dict) or "op_code" not in log:
                raise UserError(
                    str(self._path),
                    f"the study is damaged (line {number} is not a change of a study)",
                    code="unreadable",
                )
        return logs

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The changes, starting with the given number."""
        return iter(self._logs[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append changes."""
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        try:
            self._file.write(("\n".join(lines) + "\n").encode())
            self._file.flush()
        except OSError as error:
            raise CannotWrite(self._path, error) from error
        self._logs.extend(json.loads(line) for line in lines)


def open_storage(url: str | None, path: Path) -> BaseStorage:
    """Optuna storage at a URL, or in a file.

    Args:
        url: of a database; None for the file.
        path: the file.

    Raises:
        UserError: the database cannot be reached, or the file is damaged.
    """
    if url is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        journal = RunJournal(path)
        try:
            return JournalStorage(journal)
        except (LookupError, AssertionError, TypeError, ValueError) as error:  # changes that do not fit together
            raise UserError(
                str(path), f"the study is damaged ({type(error).__name__}: {error})", code="unreadable"
            ) from error
    try:
        return get_storage(url)
    except Exception as error:  # database drivers raise exceptions of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError("search.storage", f"{url}: {reason}", code="unavailable") from error
