"""The file of a study: one line for each change, chained by checksums."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.storages.journal import BaseJournalBackend

from espalier.nas.errors import CannotWrite, UserError
from espalier.nas.files import write_bytes

if TYPE_CHECKING:
    from io import BufferedRandom

_log = logging.getLogger(__name__)

DIGITS = 16
"""Hexadecimal digits of a line's checksum."""
HEADER = '{"journal":"espalier","format":1}'
"""The first line of every journal: an empty file is a damaged one."""


class RunJournal(BaseJournalBackend):
    """An append-only file with one line for each change, written by the process that owns the run folder.

    A line is a checksum, a space and the change as JSON. The checksum is that of the previous line's checksum and this
    line's JSON, so that a line that is edited, moved, repeated or removed breaks the chain. A last line without its end
    is what a kill or a full disk leaves; it is removed when the file is opened, and told.

    Optuna's own file journal takes a lock file and syncs the disk at every change, several times for each trial. Here
    the run folder is locked already, and no sync is needed to survive a killed process: what the kernel has received
    is written all the same.

    Args:
        path: the file; created if needed.

    Raises:
        UserError: the file is damaged, or cannot be opened; the first damaged line is named.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.exists():
            write_bytes(path, _line("", HEADER))
        try:
            self._file: BufferedRandom = path.open("a+b")
            content = _without_half_a_line(self._file, path)
        except OSError as error:
            raise CannotWrite(path, error) from error
        lines = content.splitlines(keepends=True)
        whole, self._last = _verified(lines)
        if len(whole) < len(lines) or not whole:
            raise UserError(
                str(path),
                f"line {len(whole) + 1} of the study is damaged, or lines before it are missing; --salvage continues "
                f"with the {max(len(whole) - 1, 0)} changes before it",
                code="unreadable",
            )
        self._logs = whole[1:]

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The changes, starting with the given number."""
        return iter(self._logs[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append changes."""
        lines, last = [], self._last
        for log in logs:
            lines.append(_line(last, json.dumps(log, separators=(",", ":"))))
            last = _checksum(lines[-1])
        try:
            self._file.write(b"".join(lines))
            self._file.flush()
        except OSError as error:
            raise CannotWrite(self._path, error) from error
        self._last = last
        self._logs.extend(json.loads(line[DIGITS + 1 :]) for line in lines)


def salvage_journal(path: Path) -> None:
    """Keep what is whole of a damaged journal: the lines before the first damaged one.

    The damaged file is kept beside it, as `study.journal.damaged`. Nothing happens where nothing is damaged.

    Args:
        path: the journal.

    Raises:
        UserError: it cannot be read or written.
    """
    if not path.exists():
        return
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror or error}", code="unreadable") from error
    lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
    whole, _ = _verified(lines)
    if len(whole) == len(lines) and whole:
        return
    damaged = path.with_name(f"{path.name}.damaged")
    write_bytes(damaged, content)
    write_bytes(path, b"".join(lines[: len(whole)]) or _line("", HEADER))
    _log.warning(
        "%s: line %d is damaged; kept the %d changes before it, and the damaged file as %s",
        path,
        len(whole) + 1,
        max(len(whole) - 1, 0),
        damaged.name,
    )


def _without_half_a_line(file: BufferedRandom, path: Path) -> bytes:
    """The content of a journal; a last line without its end is cut off."""
    file.seek(0)
    content = file.read()
    whole = content.rfind(b"\n") + 1
    if 0 < whole < len(content):
        _log.warning("%s: removed an incomplete last line", path)
        file.truncate(whole)
    return content[:whole]


def _verified(lines: Sequence[bytes]) -> tuple[list[dict[str, Any]], str]:
    """What the lines up to the first damaged one hold, header first, and the last of their checksums."""
    found: list[dict[str, Any]] = []
    last = ""
    for line in lines:
        value = _change(line, last)
        if value is None or (not found and value != json.loads(HEADER)):
            break
        found.append(value)
        last = _checksum(line)
    return found, last


def _change(line: bytes, last: str) -> dict[str, Any] | None:
    """The change in a line; None where the line does not follow the one with the checksum `last`."""
    try:
        text = line[DIGITS + 1 : -1].decode()
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and line == _line(last, text) else None


def _line(last: str, text: str) -> bytes:
    return f"{hashlib.sha256(f'{last}{text}'.encode()).hexdigest()[:DIGITS]} {text}\n".encode()


def _checksum(line: bytes) -> str:
    return line[:DIGITS].decode()
