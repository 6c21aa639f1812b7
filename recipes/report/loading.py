"""A run folder as typed values. A stage that has not finished is None."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from nas.errors import UserError
from nas.files import read_json
from nas.measurement import Measurement

Interval = tuple[float | None, float | None] | None
"""None, whole or in part, where it is not defined."""


class Record(BaseModel):
    """A part of a stage's outputs; keys that the report does not show are let pass."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Data(Record):
    name: str
    classes: list[str]
    image_shape: tuple[int, int, int]
    splits: dict[str, int]


class Epoch(Record):
    """One line of a training's log; `accuracy` in [0, 1] where it was looked at."""

    epoch: int
    loss: float | None
    accuracy: float | None = None


class Supernet(Record):
    strategy: str
    rows: list[Epoch]


class Correlation(Record):
    """Rank correlations of predictor `name` with an accuracy, over `n` architectures."""

    name: str
    n: int
    kendall: float | None
    kendall_ci95: Interval = None
    spearman: float | None
    spearman_ci95: Interval = None
    not_finite: int = 0


class RankPoint(Record):
    id: str
    target: float
    values: dict[str, float | None]


class Rank(Record):
    table: str
    target: str
    samples: int
    correlations: list[Correlation]
    points: list[RankPoint]


class Objective(Record):
    name: str
    direction: Literal["maximize", "minimize"]


class SearchedCandidate(Record):
    trial: int
    id: str
    notation: str = ""
    status: Literal["complete", "infeasible", "failed"]
    values: dict[str, float | None]
    reason: str = ""


class Search(Record):
    objectives: list[Objective]
    constraints: list[str] = []
    counts: dict[str, int]
    candidates: list[SearchedCandidate]
    front: list[str]


class NetworkEstimate(Record):
    """`value` is None, or to be left aside, unless `status` is `ok`."""

    value: float | None
    unit: str = ""
    status: str = "ok"
    higher_is_better: bool


class TrainedNetwork(Record):
    """A network trained alone; `accuracy` in [0, 1] on the `images` images of the selection split."""

    id: str
    notation: str
    origin: str
    diagram: list[tuple[str, str, str]] = []
    params: int
    macs: int
    accuracy: float
    images: int
    rows: list[Epoch] = []
    estimates: dict[str, NetworkEstimate] = {}


class Train(Record):
    networks: list[TrainedNetwork]
    correlations: list[Correlation] = []


class ExportedFile(Record):
    exporter: str
    fallback_reason: str | None = None
    opset: int
    size_bytes: int
    max_abs_error: float
    tolerance: float


class Tested(Record):
    images: int
    accuracy: dict[str, float]


class Stages(Record):
    """The outputs of every stage, by name."""

    data: Data | None = None
    supernet: Supernet | None = None
    rank: Rank | None = None
    search: Search | None = None
    train: Train | None = None
    export: dict[str, ExportedFile] | None = None
    profile: dict[str, Measurement] | None = None
    test: Tested | None = None


class Run(Record):
    """All that a report tells of.

    Attributes:
        path: the run folder. recipe: as parsed; recipe_text: as written. environment: from `environment.json`.
        results_of: when the newest stage finished; None before the first one.
    """

    path: Path
    recipe: dict[str, Any]
    recipe_text: str
    environment: dict[str, Any]
    stages: Stages
    results_of: datetime | None

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
