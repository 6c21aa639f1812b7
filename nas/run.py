"""The run folder, which holds everything that a run writes. One process at a time owns it."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espalier.nas.architecture import Architecture
from espalier.nas.errors import CannotWrite, UserError
from espalier.nas.files import read_json, write_json
from espalier.nas.sealed import read_sealed, seal

_log = logging.getLogger(__name__)


class RunFolder:
    """A folder `recipe.yaml environment.json log.jsonl stages/ checkpoints/ architectures/<id>/ report.html`.

    Args:
        path: the folder; `lock` creates it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @contextmanager
    def lock(self) -> Iterator[RunFolder]:
        """Own the folder while the block runs. The lock ends with the process, even if it is killed.

        Raises:
            UserError: another process owns the folder, or it cannot be created or written.
        """
        from filelock import FileLock, Timeout

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(str(self.path), "another process is using this run folder", code="busy") from error
        except OSError as error:
            raise CannotWrite(self.path, error) from error
        try:
            self._remove_leftovers()
            yield self
        finally:
            lock.release()

    def _remove_leftovers(self) -> None:
        """Remove half-written files of a killed process. This is safe, since only the owner of the folder writes."""
        for folder in (".", "stages", "checkpoints", "architectures/*"):
            for path in self.path.glob(f"{folder}/.*.tmp"):
                _log.debug("removing %s, which a killed process left", path)
                path.unlink(missing_ok=True)
        for pattern in (".latency-*", ".compress-*"):  # temporary exports, for timing or compression
            for path in self.path.glob(pattern):
                shutil.rmtree(path)

    def log(self, event: str, **fields: Any) -> None:
        """Append one line `{"time": seconds, "event": event, ...}` to `log.jsonl`.

        Args:
            event: the kind of event.
            **fields: further values, as JSON.

        Raises:
            UserError: the file cannot be written.
        """
        line = json.dumps({"time": round(time.time(), 3), "event": event, **fields}) + "\n"
        path = self / "log.jsonl"
        try:
            with path.open("ab") as file:
                if file.tell() and not _ends_a_line(path):  # the last writer was killed in the middle of a line
                    file.write(b"\n")
                file.write(line.encode())
        except OSError as error:
            raise CannotWrite(path, error) from error

    def architecture(self, architecture: Architecture) -> Path:
        """The folder of one architecture, by its id, with `architecture.json` in it."""
        folder = self / "architectures" / architecture.id
        if not (folder / "architecture.json").exists():
            write_json(folder / "architecture.json", json.loads(architecture.to_json()))
        return folder

    def stage_file(self, stage: str) -> Path:
        """The file that keeps the result of a stage."""
        return self / "stages" / f"{stage}.json"

    @property
    def id(self) -> str:
        """Names the run where several share something, such as a database; it moves and is copied with the folder.

        Raises:
            UserError: its file is damaged.
        """
        path = self / "run.json"
        if not path.exists():
            write_json(path, {"id": uuid.uuid4().hex[:12]})
        value = read_json(path)
        if not isinstance(value, dict) or not re.fullmatch("[0-9a-f]{12}", str(value.get("id"))):
            raise UserError(
                str(path), "does not hold the id of a run; delete it to start a new study", code="unreadable"
            )
        return str(value["id"])

    def finished(self, stage: str, key: str) -> Any | None:
        """The outputs of a finished stage; `None` if it has not finished with this key.

        Raises:
            UserError: the record is damaged.
        """
        path = self.stage_file(stage)
        if not path.exists():
            return None
        record = read_record(path)
        return record["outputs"] if record["key"] == key else None

    def forget_all_but(self, keys: Mapping[str, str]) -> None:
        """Remove the records of stages whose inputs have changed, or which are no longer in the recipe.

        Their files are about to be overwritten, and everything in a run folder must belong together.

        Args:
            keys: the keys of the stages to keep, by name.

        Raises:
            UserError: a record is damaged.
        """
        for path in (self / "stages").glob("*.json"):
            if read_record(path)["key"] != keys.get(path.stem):
                _log.info("stage %s: its inputs have changed, or it is no longer in the recipe", path.stem)
                path.unlink()

    def finish(self, stage: str, key: str, outputs: Any, files: Mapping[str, str] | None = None) -> None:
        """Record a stage's outputs.

        Args:
            stage: its name.
            key: of its inputs.
            outputs: plain JSON types.
            files: the hash of each file that it has written and that is read again, by its path in the folder.
        """
        write_json(self.stage_file(stage), seal({"key": key, "outputs": outputs, "files": dict(files or {})}))


def read_record(path: Path) -> dict[str, Any]:
    """The `key`, the `outputs` and the `files` of a finished stage.

    Raises:
        UserError: the record is damaged, or nothing here wrote it.
    """
    cure = "delete it, or use --salvage, to run the stage again"
    record = read_sealed(path, cure)
    files = record.get("files")
    if not {"key", "outputs"} <= record.keys() or not isinstance(files, dict):
        raise UserError(str(path), f"is not a valid record of a finished stage; {cure}", code="unreadable")
    return record


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
