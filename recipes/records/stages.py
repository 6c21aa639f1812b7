"""The results of all stages by name, and the one place where they become JSON and are read again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from espalier.nas.errors import UserError
from espalier.nas.measurement import Measurement
from espalier.nas.run import RunFolder, read_record
from espalier.recipes.records.base import Record
from espalier.recipes.records.networks import ExportedFile, TestResult, TrainedNetwork, TrainResult
from espalier.recipes.records.ranking import RankResult
from espalier.recipes.records.search import SearchResult, SelectResult
from espalier.recipes.records.supernet import DataResult, SupernetResult


class Stages(Record):
    """The result of every stage. A stage that has not finished is None."""

    data: DataResult | None = None
    supernet: SupernetResult | None = None
    rank: RankResult | None = None
    select: SelectResult | None = None
    search: SearchResult | None = None
    train: TrainResult | None = None
    export: dict[str, ExportedFile] | None = None
    """By the network's id."""
    profile: dict[str, Measurement] | None = None
    """By the network's id."""
    test: TestResult | None = None

    @property
    def networks(self) -> tuple[TrainedNetwork, ...]:
        """The networks trained alone, none before the stage `train` has finished."""
        return () if self.train is None else self.train.networks

    def extended(self, name: str, result: Any) -> Stages:
        """These results and that of the stage `name`."""
        return self.model_copy(update={name: result})


def write_stage(run: RunFolder, name: str, key: str, result: Any, files: Mapping[str, str] | None = None) -> None:
    """Write the result of a stage to `stages/<name>.json`.

    Args:
        run: the run folder.
        name: of the stage.
        key: its cache key.
        result: what it returned.
        files: the hash of each file that it has written and that is read again, by its path in the folder.
    """
    run.finish(name, key, Stages(**{name: result}).model_dump(mode="json", include={name})[name], files)


def finished_stage(run: RunFolder, name: str, key: str) -> Any | None:
    """The result of the stage `name`, if it has finished with this cache key.

    Raises:
        UserError: its file is damaged.
    """
    outputs = run.finished(name, key)
    return None if outputs is None else _parse(name, outputs, stage_file(run.path, name))


def read_stages(folder: Path) -> Stages:
    """The results of all stages that have finished in a run folder, whatever their cache keys.

    Raises:
        UserError: a file is damaged.
    """
    files = {name: stage_file(folder, name) for name in Stages.model_fields}
    return Stages(**{name: _read(name, file) for name, file in files.items() if file.exists()})


def stage_keys(folder: Path) -> dict[str, str]:
    """The cache keys of all stages that have finished in a run folder.

    Raises:
        UserError: a file is damaged.
    """
    files = {name: stage_file(folder, name) for name in Stages.model_fields}
    return {name: str(read_record(file)["key"]) for name, file in files.items() if file.exists()}


def stage_file(folder: Path, name: str) -> Path:
    """The file that keeps the result of a stage."""
    return folder / "stages" / f"{name}.json"


def _read(name: str, path: Path) -> Any:
    return _parse(name, read_record(path)["outputs"], path)


def _parse(name: str, outputs: Any, path: Path) -> Any:
    try:
        return getattr(Stages.model_validate({name: outputs}), name)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, ("outputs", *first["loc"][1:])))
        raise UserError(str(path), f"{key}: {first['msg']}", code="unreadable") from error
