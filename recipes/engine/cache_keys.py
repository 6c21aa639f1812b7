"""The stages of a run, and the keys that say whether one has to be run again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.hashing import digest
from espalier.recipes.config.own_code import own_code
from espalier.recipes.config.schema import Recipe
from espalier.recipes.engine.context import Context
from espalier.recipes.engine.environment import version
from espalier.recipes.engine.strategy_target import target_of


@dataclass(frozen=True)
class Stage:
    """A step of a run.

    Attributes:
        name: also the module in `espalier.recipes.engine.stages` and the file in the run folder.
        sections: the recipe's sections it depends on; the stage is not run if the first of them is absent.
        needs: the stages whose outputs it uses, as far as the recipe has them.
    """

    name: str
    sections: tuple[str, ...]
    needs: tuple[str, ...]


STAGES = (
    Stage("data", ("data", "seed"), ()),
    Stage("supernet", ("supernet", "space"), ("data",)),
    Stage("rank", ("rank", "space"), ("data", "supernet")),
    Stage("select", ("select", "space"), ("data", "supernet")),
    Stage("search", ("search", "space", "profile"), ("data", "supernet")),
    Stage("train", ("train",), ("select", "search")),
    Stage("export", ("train",), ("train",)),
    Stage("profile", ("train", "profile"), ("export",)),
    Stage("test", ("train",), ("train",)),
)


def plan(context: Context) -> list[Stage]:
    """The stages of the context's recipe in order; fills in their cache keys.

    A key is a hash of everything that decides a stage's outputs: the platform's version, its sections of the
    recipe, the content of the files it reads, and the keys of the stages before it.
    """
    stages = [stage for stage in STAGES if getattr(context.recipe, stage.sections[0]) is not None]
    for stage in stages:
        inputs: dict[str, Any] = {
            "stage": stage.name,
            "version": version(),
            "sections": {name: _section(context.recipe, stage, name) for name in stage.sections},
            **_budgeted(context.recipe, stage),
            "files": _files(context, stage),
            **_own_code(context.recipe, stage),
            "needs": [context.keys[need] for need in stage.needs if need in context.keys],
        }
        context.keys[stage.name] = digest(inputs)
        if stage.name == "search":  # more trials are the same study, taken further
            del inputs["sections"]["search"]["trials"]
            context.study_key = digest(inputs)
    return stages


def _section(recipe: Recipe, stage: Stage, name: str) -> Any:
    """The part of a section that the stage depends on."""
    if stage.name == "search" and name == "profile" and recipe.search is not None:
        timed = {"device", "provider", "threads", "batch", "search_seconds"}
        return recipe.profile.model_dump(mode="json", include=timed if recipe.measures_in_search else set())
    if stage.name == "profile" and name == "profile":
        return recipe.profile.model_dump(mode="json", exclude={"search_seconds"})
    return recipe.model_dump(mode="json")[name]


def _budgeted(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """What of the budget a stage depends on, and how it measures; nothing without one."""
    budget = recipe.budget
    if budget is None or stage.name not in ("supernet", "select", "search", "train", "profile"):
        return {}
    if stage.name == "supernet":
        target = target_of(recipe)
        return {} if target is None else {"target": target}
    tables = [path for path in (budget.table, *budget.sources) if path is not None]
    return {
        "budget": budget.model_dump(mode="json"),
        "tables": [_content(path, "budget.table") for path in tables],
        "thorough": recipe.profile.model_dump(mode="json") if budget.latency_ms and stage.name != "search" else None,
    }


def _own_code(recipe: Recipe, stage: Stage) -> dict[str, Any]:
    """The content of the own methods that the stage uses; nothing without any."""
    code = {name: content for section in stage.sections for name, content in own_code(recipe, section).items()}
    return {"code": code} if code else {}


def _files(context: Context, stage: Stage) -> str | None:
    """A fingerprint of what the stage reads from outside."""
    if stage.name == "data":
        return context.splits.fingerprint
    if stage.name == "supernet" and context.recipe.supernet is not None:
        table = getattr(context.recipe.supernet.strategy, "cost", "macs")  # of ProxylessNAS
        return None if table == "macs" else _content(Path(table), "supernet.strategy.cost")
    if stage.name == "rank" and context.recipe.rank is not None:
        return _content(context.recipe.rank.table, "rank.table")
    if stage.name == "search" and context.recipe.search is not None and context.recipe.search.replay is not None:
        return _content(context.recipe.search.replay.table, "search.replay.table")
    return None


def _content(path: Path, where: str) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(where, f"{path} cannot be read: {error.strerror or error}") from error
