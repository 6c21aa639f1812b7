"""Where run folders are, and how a run is resumed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.files import read_json, write_json, write_text
from espalier.nas.hashing import digest
from espalier.nas.run import RunFolder
from espalier.recipes.config.loading import dump_recipe, load_recipe
from espalier.recipes.config.schema import Recipe
from espalier.recipes.config.yaml_text import parse_yaml
from espalier.recipes.records.reading import read_recipe

STUDY = "study.journal"
"""The file of a run folder that keeps its study, where the recipe names no database."""
OVERRIDES = "overrides.json"
"""The file of a run folder that keeps the overrides it was started with."""
BEFORE_ANYTHING = frozenset(
    {".lock", "recipe.yaml", OVERRIDES, "environment.json", "log.jsonl", "run.json", "stages", "stages/data.json"}
)
"""What a run has written before it computes anything."""


def run_folder(recipe: Recipe, output: Path | None, *, resume: bool, runs: Path = Path("runs")) -> Path:
    """The folder of a run: `output`, or `runs/<recipe>-<date>-<id>`; with `resume`, the newest such folder.

    Args:
        recipe: to run.
        output: the folder that the user asks for, if any.
        resume: whether an earlier run is to be continued.
        runs: where folders without a name of their own are made.

    Raises:
        UserError: there is nothing to resume, or the folder holds something that would be overwritten.
    """
    if output is None and resume:
        ours = re.compile(re.escape(recipe.name) + r"-\d{8}-\d{6}-[0-9a-f]{6}")
        found = [path for path in runs.glob("*/recipe.yaml") if ours.fullmatch(path.parent.name) and path.is_file()]
        found.sort(key=lambda path: path.stat().st_mtime)
        if not found:
            raise UserError(str(runs), f"has no run of {recipe.name} to resume", code="not_found")
        return found[-1].parent
    if output is None:
        date = time.strftime("%Y%m%d-%H%M%S")
        return runs / f"{recipe.name}-{date}-{digest(recipe.model_dump(mode='json'))[:6]}"
    try:
        content = [path.name for path in output.iterdir()]
    except NotADirectoryError as error:
        raise UserError(str(output), "is a file, or is inside one, and must be a folder") from error
    except FileNotFoundError:
        content = []
    except OSError as error:
        raise UserError(str(output), f"cannot be read: {error.strerror or error}", code="unreadable") from error
    if not resume and any(name != ".lock" and not name.endswith(".tmp") for name in content):
        # (a run that was killed at once leaves those two)
        raise UserError(str(output), "is not empty; use --resume to continue the run in it", code="conflict")
    if resume and not {"recipe.yaml", OVERRIDES} <= set(content):
        raise UserError(str(output), "contains no run to resume", code="not_found")
    return output


def check_writable(folder: Path) -> None:
    """Look whether a folder can be made, or written to, without making it.

    Raises:
        UserError: it cannot.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UserError(str(folder), "is a file, or is inside one, and must be a folder", code="not_writable")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(str(folder), "cannot be written: permission denied", code="not_writable")
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise UserError(str(folder), "is no UTF-8 name, which files of a run cannot hold") from error


def resumed_recipe(
    folder: Path, recipe: str | Path | Mapping[str, Any], overrides: Sequence[str]
) -> tuple[Recipe, list[str], list[str]]:
    """The recipe of a run that is resumed: with the overrides it was started with, then the new ones.

    Args:
        folder: of the run.
        recipe: its file, its name or its content.
        overrides: the new ones, `key=value`.

    Returns:
        The recipe, all its overrides, and a line for each key that has changed since.

    Raises:
        UserError: the folder contains a run of another recipe.
    """
    every = [*_remembered(folder / OVERRIDES), *overrides]
    settings = load_recipe(recipe, every)
    _, before = read_recipe(folder / "recipe.yaml")
    if before.get("name") != settings.name:
        problem = f"contains a run of the recipe {before.get('name')!r}, not of {settings.name!r}"
        raise UserError(str(folder), problem, code="mismatch")
    return settings, every, list(_changes(before, parse_yaml(dump_recipe(settings), where="recipe")))


def _remembered(path: Path) -> list[str]:
    """The overrides that a run was started with.

    Raises:
        UserError: the file is not a list of `key=value`.
    """
    value = read_json(path)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise UserError(str(path), "must be a list of texts key=value", code="unreadable")
    return value


def remember(folder: Path, recipe: Recipe, overrides: Sequence[str]) -> None:
    """Write the resolved recipe and its overrides into the run folder."""
    write_text(folder / "recipe.yaml", dump_recipe(recipe))
    write_json(folder / OVERRIDES, list(overrides))


@contextmanager
def free_if_nothing_began(run: RunFolder) -> Iterator[None]:
    """Leave no run behind where a new one fails before it has computed anything: the corrected command works.

    Args:
        run: the run folder, locked.
    """
    is_new = not (run / "recipe.yaml").exists()
    try:
        yield
    except Exception:
        found = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*")}
        if is_new and found <= BEFORE_ANYTHING:
            for name in sorted(found - {".lock"}, reverse=True):  # files before their folder
                (run / name).rmdir() if (run / name).is_dir() else (run / name).unlink()
        raise


def _changes(before: Any, after: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from _changes(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif before != after:
        yield f"{path}: {before} -> {after}"
