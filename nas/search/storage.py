"""Storage of a study: a journal in the run folder, or any database that Optuna supports."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, get_storage

from espalier.nas.errors import UserError
from espalier.nas.hashing import short_hash
from espalier.nas.search.journal import RunJournal


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


def check_storage(url: str) -> None:
    """Look whether a database can be reached, without making one: its driver is installed, its server answers.

    Args:
        url: of the database.

    Raises:
        UserError: it cannot be reached.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url

    try:
        address = make_url(url)
        if address.get_backend_name() == "sqlite":
            _check_place(Path(address.database or "."))
        else:
            create_engine(address).connect().close()
    except Exception as error:  # database drivers raise exceptions of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError("search.storage", f"{url}: {reason}", code="unavailable") from error


def _check_place(database: Path) -> None:
    """Raises OSError where a file of SQLite can be neither opened nor made."""
    if not os.access(database if database.exists() else database.parent, os.W_OK):
        raise PermissionError(f"{database} cannot be written")


@contextmanager
def study_in_use(url: str | None, study: str) -> Iterator[None]:
    """Own a study in a database while the block runs; no other process of this user on this machine gets it.

    The file of a run folder needs no such lock: its folder is locked.

    Args:
        url: of the database; None for the file.
        study: the study's name.

    Raises:
        UserError: another process owns it.
    """
    from filelock import FileLock, Timeout

    if url is None:
        yield
        return
    name = f"espalier-study-{os.getuid()}-{short_hash(f'{url} {study}')}.lock"
    lock = FileLock(Path(tempfile.gettempdir()) / name)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        problem = f"another process is using the study {study}, of the same run folder or a copy of it"
        raise UserError("search.storage", problem, code="busy") from error
    try:
        yield
    finally:
        lock.release()
