"""The stages of a run, and the keys that decide whether one has to run again.

A finished stage is used again as long as its key is the same. The key is a hash of everything that decides the stage's
result:

- the stage's name and its schema version, the integer `version` in `STAGES`;
- its sections of the recipe, and of the sections that it uses in part, that part;
- the content of the files that it reads, and of the user's own methods that it uses with the modules beside them that
  they import; a file that moves is the same file;
- the keys of the stages whose results it uses.

The release of the platform is not part of it, so an update keeps what has been computed. Whoever changes code so that a
stage gives another result, or writes it in another form, raises the stage's version by one; the keys of the stages that
use its result change with it. What does not need a new version: refactoring, speed, messages, new options whose default
gives the old result (an option is part of its section, so a default that is added later does change the key).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.hashing import digest
from espalier.recipes.config.own_code import own_code
from espalier.recipes.config.schema import Recipe
from espalier.recipes.engine.strategy_cost import target_of


@dataclass(frozen=True)
class Stage:
    """A step of a run.

    Attributes:
        name: also of the module in `espalier.recipes.engine.stages`, and of the file in the run folder.
        version: of what the stage computes and writes; raised by one when either changes.
        sections: the recipe's sections it depends on; the stage does not run if the first of them is absent.
        needs: the stages whose results it uses, as far as the recipe has them.
    """

    name: str
    version: int
    sections: tuple[str, ...]
    needs: tuple[str, ...]


STAGES = (
    Stage("data", 1, ("data", "seed"), ()),
    Stage("supernet", 1, ("supernet", "space"), ("data",)),
    Stage("rank", 1, ("rank", "space"), ("data", "supernet")),
    Stage("select", 1, ("select", "space"), ("data", "supernet")),
    Stage("search", 1, ("search", "space", "profile"), ("data", "supernet")),
    Stage("train", 1, ("train",), ("select", "search")),
    Stage("export", 1, ("train",), ("train",)),
    Stage("profile", 1, ("train", "profile"), ("export",)),
    Stage("test", 1, ("train",), ("train",)),
)


PATHS: Any = {
    "data": {"path", "test_path"},
    "rank": {"table"},
    "search": {"replay": {"table"}},
    "budget": {"table", "sources"},
}
"""Keys of files whose content is a part of the keys in another way."""
MOVABLE = frozenset({"data", "space", "supernet"})
"""Sections whose own methods may move; elsewhere their names are those of columns and values in the results."""


@dataclass(frozen=True)
class Plan:
    """The stages of one recipe.

    Attributes:
        stages: in their order.
        keys: cache key of each, by name.
        study_key: of the search, whatever its number of trials: more trials continue the same study.
    """

    stages: tuple[Stage, ...]
    keys: Mapping[str, str]
    study_key: str = ""


def plan(recipe: Recipe, data_fingerprint: str) -> Plan:
    """The stages that a recipe has, and their cache keys.

    Args:
        recipe: resolved and checked.
        data_fingerprint: of the images.

    Raises:
        UserError: a file that the recipe names cannot be read.
    """
    stages = tuple(stage for stage in STAGES if getattr(recipe, stage.sections[0]) is not None)
    keys: dict[str, str] = {}
    study_key = ""
    for stage in stages:
        inputs: dict[str, Any] = {
            "stage": stage.name,
            "version": stage.version,
            "sections": {name: _section(recipe, stage, name) for name in stage.sections},
            **_budgeted(recipe, stage),
            **_own_code(recipe, stage),
            "files": data_fingerprint if stage.name == "data" else _file(recipe, stage),
            "needs": [keys[need] for need in stage.needs if need in keys],
        }
        keys[stage.name] = digest(inputs)
        if stage.name == "search":
            del inputs["sections"]["search"]["trials"]
            study_key = digest(inputs)
    return Plan(stages, keys, study_key)


def networks_key(recipe: Recipe, image_shape: tuple[int, int, int], classes: int) -> str:
    """A digest of what the network of an architecture depends on besides the architecture, and the device's file.

    Args:
        recipe: resolved and checked.
        image_shape: `(channels, height, width)` of the images.
        classes: how many there are.
    """
    document = recipe.model_dump(mode="json")
    deploy = document["search"]["deploy"] if recipe.search is not None else None
    space = _with_content(document["space"], own_code(recipe, "space"))
    return digest([space, image_shape, classes, deploy, own_code(recipe, "profile")])


def _section(recipe: Recipe, stage: Stage, name: str) -> Any:
    """The part of a section that the stage depends on; files count by their content, not by where they are."""
    if stage.name == "search" and name == "profile" and recipe.search is not None:
        timed = {"device", "provider", "threads", "batch", "search_seconds"}
        return recipe.profile.model_dump(mode="json", include=timed if recipe.measures_in_search else set())
    if stage.name == "profile" and name == "profile":
        return recipe.profile.model_dump(mode="json", exclude={"search_seconds"})
    section = recipe.model_dump(mode="json", exclude=PATHS)[name]
    return _with_content(section, own_code(recipe, name)) if name in MOVABLE else section


def _with_content(value: Any, code: Mapping[str, str]) -> Any:
    """The value with the digest of an own method's source in place of its file's path."""
    if isinstance(value, dict):
        return {key: _with_content(inner, code) for key, inner in value.items()}
    if isinstance(value, str) and value in code:
        return f"{code[value]}:{value.rpartition(':')[2]}"
    return value


def _budgeted(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """The part of the budget that a stage depends on, and how it measures; nothing without a budget."""
    budget = recipe.budget
    if budget is None or stage.name not in ("supernet", "select", "search", "train", "profile"):
        return {}
    if stage.name == "supernet":
        target = target_of(recipe)
        return {} if target is None else {"target": target}
    tables = [path for path in (budget.table, *budget.sources) if path is not None]
    return {
        "budget": recipe.model_dump(mode="json", exclude=PATHS)["budget"],
        "device": own_code(recipe, "profile") if budget.latency_ms else {},
        "tables": [_content(path, "budget.table") for path in tables],
        "thorough": recipe.profile.model_dump(mode="json") if budget.latency_ms and stage.name != "search" else None,
    }


def _own_code(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """The content of the own methods that the stage uses and that its sections do not hold; nothing without any."""
    named = [section for section in stage.sections if section not in MOVABLE]
    code = {name: content for section in named for name, content in own_code(recipe, section).items()}
    return {"code": code} if code else {}


def _file(recipe: Recipe, stage: Stage) -> str | None:
    """A fingerprint of the file that the stage reads, besides the images."""
    if stage.name == "supernet" and recipe.supernet is not None:
        table = getattr(recipe.supernet.strategy, "cost", "macs")  # of ProxylessNAS
        return None if table == "macs" else _content(Path(table), "supernet.strategy.cost")
    if stage.name == "rank" and recipe.rank is not None:
        return _content(recipe.rank.table, "rank.table")
    if stage.name == "search" and recipe.search is not None and recipe.search.replay is not None:
        return _content(recipe.search.replay.table, "search.replay.table")
    return None


def _content(path: Path, where: str) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise UserError(where, f"{path} does not exist", code="not_found") from error
    except OSError as error:
        raise UserError(where, f"{path} cannot be read: {error.strerror or error}", code="unreadable") from error
