"""How a file becomes a recipe: read, override, scale, check."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from espalier.nas.errors import UserError
from espalier.nas.limits import NUMBER
from espalier.nas.objective import Constraint
from espalier.recipes.config.predictor_name import check_predictor
from espalier.recipes.config.recipe_library import find_recipe
from espalier.recipes.config.registry import COSTS, INHERITED, PREDICTORS, SCORES, own_score, predictor_parts
from espalier.recipes.config.schema import Recipe
from espalier.recipes.config.sections.search import RecipeSearchSettings
from espalier.recipes.config.validation_errors import first_cause
from espalier.recipes.config.yaml_text import dump_yaml, parse_yaml, read_text


def load_recipe(recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, the one of that name that ships, or a document, with `key=value` overrides.

    Raises:
        UserError: no such recipe, not YAML, a wrong override, or anything the schema refuses (the first cause).
    """
    if isinstance(recipe, Mapping):
        return recipe_from(copy.deepcopy(dict(recipe)), overrides)
    path = find_recipe(str(recipe))
    return recipe_from(parse_yaml(read_text(path), where=str(path)), overrides, where=str(path))


def recipe_from(document: Any, overrides: Sequence[str] = (), *, where: str = "recipe") -> Recipe:
    """A recipe from a parsed document."""
    if not isinstance(document, dict):
        raise UserError(where, "a recipe is a mapping of sections", allowed=Recipe.model_fields)
    for override in overrides:
        set_key(document, *parse_override(override))
    scale = document.get("scale", 1.0)
    if not _is_number(scale) or not scale > 0:
        raise UserError("scale", f"a positive number is needed, not {scale!r}")
    try:
        recipe = Recipe.model_validate(_scaled(document, float(scale)))
    except ValidationError as error:
        raise first_cause(error, Recipe) from error
    _check_names(recipe)
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, such that `recipe_from` gives it back."""
    return dump_yaml(json.loads(recipe.model_dump_json()))


def parse_override(override: str) -> tuple[str, Any]:
    """The key and the value of `a.b.c=value`, the value read as YAML.

    Raises:
        UserError: another form, or not YAML.
    """
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(override, "an override has the form key=value, such as search.trials=20")
    return key, parse_yaml(text, where=key, code="invalid")


def format_override(key: str, value: Any) -> str:
    """The override `key=value` that `parse_override` reads back; a path becomes a string, a tuple a list."""
    text = dump_yaml(json.loads(json.dumps(value, default=str)), flow=True)
    return f"{key}={text.removesuffix(chr(10)).removesuffix('...').strip()}"


def set_key(document: dict[str, Any], key: str, value: Any) -> None:
    """Set the key `a.b.c` of a document.

    Raises:
        UserError: a part of the key is a single value.
    """
    *sections, last = key.split(".")
    place = document
    for section in sections:
        inner = place.setdefault(section, {})
        if inner is None:
            inner = place[section] = {}
        if not isinstance(inner, dict):
            raise UserError(key, f"{section} is a single value, it has no keys inside")
        place = inner
    place[last] = value


def _scaled(value: Any, scale: float, where: str = "") -> Any:
    """The document with every `{full: F, least: L}` replaced by a whole number."""
    if isinstance(value, dict):
        if value.keys() == {"full", "least"}:
            if not (_is_number(value["full"]) and _is_number(value["least"])):
                raise UserError(where, f"full and least are numbers, not {value['full']!r} and {value['least']!r}")
            return max(int(value["least"]), round(value["full"] * scale))
        return {key: _scaled(inner, scale, f"{where}.{key}".lstrip(".")) for key, inner in value.items()}
    return [_scaled(inner, scale, where) for inner in value] if isinstance(value, list) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= NUMBER.most


def _check_names(recipe: Recipe) -> None:
    """Refuse names that do not go together, before anything is computed."""
    if recipe.search is not None:
        _check_search(recipe.search)
        if recipe.budget is not None and recipe.budget.latency_ms is not None and _limits_latency(recipe.search):
            raise UserError("search.constraints", "latency_ms is limited by budget.latency_ms already; once is enough")
    if recipe.select is not None and recipe.supernet is None:
        raise UserError("select", "chooses from a supernet, and needs a section supernet")
    users = {"rank.predictors": recipe.rank.predictors if recipe.rank else (), **_askers(recipe.search)}
    for where, used in users.items():
        if recipe.supernet is None and any(INHERITED in predictor_parts(name) for name in used):
            raise UserError(where, f"{INHERITED!r} needs a section supernet", allowed=(*COSTS, *SCORES))


def _check_search(search: RecipeSearchSettings) -> None:
    if len(set(search.objectives)) < len(search.objectives):
        raise UserError("search.objectives", f"{', '.join(search.objectives)} names one of them twice")
    known = ("accuracy", "latency_ms", *(("size_bytes",) if search.deploy is not None else ()), *PREDICTORS)
    for name in search.named:
        where = "search.objectives" if name in search.objectives else "search.constraints"
        if own_score(name) is not None:
            check_predictor(name, where=where)
        elif name not in known:
            raise UserError(where, f"unknown name {name!r}", allowed=(*known, *SCORES.registered), given=name)
    for where, name in search.asked.items():
        check_predictor(name, where=where)


def _limits_latency(search: RecipeSearchSettings) -> bool:
    return any(Constraint.parse(text).name == "latency_ms" for text in search.constraints)


def _askers(search: RecipeSearchSettings | None) -> dict[str, Sequence[str]]:
    """The predictors that a search asks, by the key that names them."""
    if search is None:
        return {}
    return {
        "search.accuracy": () if search.replay else (search.accuracy,),
        "search.objectives": search.objectives,
        "search.constraints": search.named,
        **{where: (name,) for where, name in search.asked.items()},
        "search.surrogate.scores": search.surrogate.scores,
    }
