"""A run folder, read and checked."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from espalier.nas.errors import UserError
from espalier.nas.files import read_json
from espalier.recipes.records.stages import Record, Stages


class Run(Record):
    """All that a report tells of.

    Attributes:
        path: the run folder.
        recipe: as parsed;
        recipe_text: as written.
        environment: from `environment.json`.
        results_of: when the newest stage finished; None before the first one.
    """

    path: Path
    recipe: dict[str, Any]
    recipe_text: str
    environment: dict[str, Any]
    stages: Stages
    results_of: datetime | None

    @property
    def limit_ms(self) -> float | None:
        """The budget's limit on latency, if there is one."""
        budget = self.recipe.get("budget")
        limit = budget.get("latency_ms") if isinstance(budget, dict) else None
        return float(limit) if isinstance(limit, int | float) else None

    @property
    def name(self) -> str:
        """The recipe's name, or the folder's where the recipe has none."""
        return str(self.recipe.get("name") or self.path.name)


def load_run(path: Path) -> Run:
    """The run in the folder `path`, however far it has come.

    Raises:
        UserError: no `recipe.yaml` in it, or one of its files is not what a run writes.
    """
    text, recipe = _read_recipe(path / "recipe.yaml")
    environment_path = path / "environment.json"
    files = {name: path / "stages" / f"{name}.json" for name in Stages.model_fields}
    files = {name: file for name, file in files.items() if file.exists()}
    times = [file.stat().st_mtime for file in files.values()]
    return Run(
        path=path,
        recipe=recipe,
        recipe_text=text,
        environment=_read_mapping(environment_path) if environment_path.exists() else {},
        stages=Stages(**{name: _read_stage(name, file) for name, file in files.items()}),
        results_of=datetime.fromtimestamp(max(times), UTC) if times else None,
    )


def _read_recipe(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text()
        recipe = yaml.safe_load(text)
    except OSError as error:
        raise UserError(str(path), error.strerror or str(error)) from error
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(str(path), f"not a readable YAML file ({error})") from error
    if not isinstance(recipe, dict):
        raise UserError(str(path), "a recipe is a mapping of sections")
    return text, recipe


def _read_mapping(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(str(path), f"must be an object, not {type(value).__name__}")
    return value


def _read_stage(name: str, path: Path) -> Any:
    record = _read_mapping(path)
    if "outputs" not in record:
        raise UserError(str(path), "has no 'outputs'")
    try:
        return getattr(Stages.model_validate({name: record["outputs"]}), name)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, ("outputs", *first["loc"][1:])))
        raise UserError(str(path), f"{key}: {first['msg']}") from error
