"""A run folder, read and checked."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.files import read_json
from espalier.nas.measurement import Measurement
from espalier.recipes.config.yaml_text import parse_yaml, read_text
from espalier.recipes.records.base import Record
from espalier.recipes.records.stages import Stages, read_stages, stage_file


class Run(Record):
    """A run as far as it has come."""

    path: Path
    """The run folder."""
    recipe: dict[str, Any]
    """The resolved recipe as parsed, not validated."""
    recipe_text: str
    """The same as written."""
    environment: dict[str, Any]
    """From `environment.json`."""
    stages: Stages
    results_of: datetime | None
    """When the newest stage finished; None before the first one."""

    @property
    def name(self) -> str:
        """The recipe's name, or the folder's where the recipe has none."""
        return str(self.recipe.get("name") or self.path.name)

    @property
    def description(self) -> str:
        """What the recipe says about itself; empty where it says nothing."""
        description = self.recipe.get("description")
        return description if isinstance(description, str) else ""

    @property
    def search_accuracy(self) -> str:
        """The predictor that stood for accuracy during the search; empty where the recipe does not name it."""
        search = self.recipe.get("search")
        accuracy = search.get("accuracy") if isinstance(search, dict) else None
        return accuracy if isinstance(accuracy, str) else ""

    @property
    def limit_ms(self) -> float | None:
        """The budget's limit on latency, if there is one."""
        budget = self.recipe.get("budget")
        limit = budget.get("latency_ms") if isinstance(budget, dict) else None
        return float(limit) if isinstance(limit, int | float) and not isinstance(limit, bool) else None

    @property
    def over_budget(self) -> dict[str, Measurement]:
        """The trained networks whose measured latency exceeds the budget, by id; see `exceeds`."""
        measured = self.stages.profile or {}
        return {id_: m for id_, m in measured.items() if exceeds(m, self.limit_ms)}


def exceeds(measurement: Measurement, limit_ms: float | None) -> bool:
    """Whether the upper end of the latency's interval is over the limit, if there is one."""
    return limit_ms is not None and measurement.latency.ci95[1] > limit_ms


def load_run(path: Path) -> Run:
    """The run in the folder `path`, however far it has come.

    Raises:
        UserError: no `recipe.yaml` in it, or one of its files is not what a run writes.
    """
    text, recipe = read_recipe(path / "recipe.yaml")
    environment = path / "environment.json"
    files = (stage_file(path, name) for name in Stages.model_fields)
    times = [file.stat().st_mtime for file in files if file.exists()]
    return Run(
        path=path,
        recipe=recipe,
        recipe_text=text,
        environment=_read_mapping(environment) if environment.exists() else {},
        stages=read_stages(path),
        results_of=datetime.fromtimestamp(max(times), UTC) if times else None,
    )


def read_recipe(path: Path) -> tuple[str, dict[str, Any]]:
    """The recipe of a run folder, as text and as parsed; it is not validated, which could run code.

    Raises:
        UserError: the file is missing, or is not a recipe.
    """
    if not path.exists():
        raise UserError(str(path), "does not exist, so its folder is not a run folder", code="not_found")
    text = read_text(path)
    recipe = parse_yaml(text, where=str(path))
    if not isinstance(recipe, dict):
        raise UserError(str(path), "a recipe is a mapping of sections", code="unreadable")
    return text, recipe


def _read_mapping(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(str(path), f"must be an object, not {type(value).__name__}", code="unreadable")
    return value
