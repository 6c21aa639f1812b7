"""The files that stages keep beside their records: what they hold is known, and checked before they are used again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from espalier.nas.checkpoint import weights_hash
from espalier.nas.errors import UserError
from espalier.nas.hashing import file_hash
from espalier.nas.run import RunFolder, read_record
from espalier.recipes.engine.cache_keys import STAGES
from espalier.recipes.records.stages import finished_stage

_log = logging.getLogger(__name__)

PATTERNS = {
    "supernet": ("checkpoints/supernet-{key}-*.safetensors", "checkpoints/strategy-{key}-*.pt"),
    "train": ("architectures/*/model.safetensors",),
    "export": ("architectures/*/model.*",),
}
"""The files of each stage that later stages, or a later process, read."""
TENSORS = "tensors "
"""Before a hash of tensors alone: the stage `export` writes the weights of `train` again, with metadata."""


def stage_files(run: RunFolder, stage: str, key: str) -> dict[str, str]:
    """The hash of each file that a stage has just written, by its path in the run folder.

    Args:
        run: the run folder.
        stage: its name.
        key: its cache key.
    """
    patterns = [pattern.format(key=key) for pattern in PATTERNS.get(stage, ())]
    paths = sorted(path for pattern in patterns for path in run.path.glob(pattern) if path.is_file())
    tensors = stage == "train"
    return {path.relative_to(run.path).as_posix(): _hash(path, tensors=tensors) for path in paths}


def check_stage_files(run: RunFolder, keys: Mapping[str, str]) -> None:
    """Refuse files of finished stages whose content is not what the stage wrote.

    A file that is gone is no matter here: it may have been removed to save space, and who needs it says so.

    Args:
        run: the run folder.
        keys: the cache keys of the stages, by name.

    Raises:
        UserError: the first such file, or a damaged record of a stage.
    """
    for stage in STAGES:
        changed = _changed(run, stage.name, keys)
        if changed is not None:
            problem = "was edited or damaged since its stage finished; --salvage runs the stage again"
            raise UserError(str(changed), problem, code="unreadable")


def salvage_stages(run: RunFolder, keys: Mapping[str, str]) -> None:
    """Forget the stages whose records or files are damaged, and those that use their results.

    Args:
        run: the run folder.
        keys: the cache keys of the stages, by name.
    """
    forgotten: set[str] = set()
    for stage in STAGES:
        path = run.stage_file(stage.name)
        if not path.exists():
            continue
        used = sorted(forgotten & set(stage.needs))
        cause = f"it uses {', '.join(used)}" if used else _damage(run, stage.name, keys)
        if cause:
            forgotten.add(stage.name)
            path.unlink()
            _log.warning("stage %s is run again: %s", stage.name, cause)


def _damage(run: RunFolder, stage: str, keys: Mapping[str, str]) -> str:
    """What is wrong with a stage's record or its files; empty if nothing is."""
    try:
        changed = _changed(run, stage, keys)
        finished_stage(run, stage, keys.get(stage, ""))
    except UserError as error:
        return str(error)
    return "" if changed is None else f"{changed} was edited or damaged"


def _changed(run: RunFolder, stage: str, keys: Mapping[str, str]) -> Path | None:
    """The first file of a stage that has finished with its key and is not as the stage left it."""
    path = run.stage_file(stage)
    record = read_record(path) if path.exists() else None
    if record is None or record["key"] != keys.get(stage):
        return None
    for name, expected in record["files"].items():
        file = run / name
        if file.is_file() and _hash(file, tensors=str(expected).startswith(TENSORS)) != expected:
            return file
    return None


def _hash(path: Path, *, tensors: bool) -> str:
    try:
        return f"{TENSORS}{weights_hash(path)}" if tensors else file_hash(path)
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror or error}", code="unreadable") from error
