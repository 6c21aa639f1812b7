"""How a file becomes a recipe: read, override, scale, check."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Sequence
from typing import Any

import yaml
from pydantic import ValidationError

from nas.errors import UserError
from nas.settings import Settings
from recipes.components import COSTS, INHERITED, PREDICTORS, SCORES, members
from recipes.schema import Recipe
from recipes.shipped import find_recipe


def load_recipe(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, or the one of that name that ships, with `key=value` overrides.

    Raises:
        UserError: no such recipe, not YAML, a wrong override, or anything the schema refuses (the first cause).
    """
    path = find_recipe(recipe)
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(str(path), f"not a readable YAML file ({' '.join(str(error).split())})") from error
    return recipe_from(document, overrides, where=str(path))


def recipe_from(document: Any, overrides: Sequence[str] = (), *, where: str = "recipe") -> Recipe:
    """A recipe from a parsed document."""
    if not isinstance(document, dict):
        raise UserError(where, "a recipe is a mapping of sections", allowed=Recipe.model_fields)
    for override in overrides:
        _apply(document, override)
    scale = document.get("scale", 1.0)
    if not _is_number(scale) or not scale > 0:
        raise UserError("scale", f"a positive number is needed, not {scale!r}")
    try:
        recipe = Recipe.model_validate(_scaled(document, float(scale)))
    except ValidationError as error:
        raise first_cause(error) from error
    _check_names(recipe)
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML, such that `recipe_from` gives it back."""
    return yaml.safe_dump(json.loads(recipe.model_dump_json()), sort_keys=False, allow_unicode=True)


def first_cause(error: ValidationError, schema: type[Settings] = Recipe) -> UserError:
    """The first of pydantic's complaints about a document of this schema, as a user wants to read it."""
    details = error.errors(include_url=False)[0]
    location = [str(part) for part in details["loc"]]
    if details["type"] == "extra_forbidden":
        siblings = _fields_at(location[:-1], schema)
        return UserError(".".join(location), "unknown key", allowed=siblings, given=location[-1])
    where = ".".join(location) or "recipe"
    if details["type"] == "missing":
        return UserError(where, "is missing")
    if details["type"] in ("model_type", "model_attributes_type"):
        return UserError(where, "is a section, with keys inside", allowed=_fields_at(location, schema))
    given = details["input"]
    if details["type"] == "literal_error":
        allowed = [part.strip(" '") for part in details["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return UserError(where, f"{given!r} is not possible", allowed=allowed, given=given)
    if details["type"] == "predictor_name":
        return UserError(where, details["msg"], allowed=details["ctx"]["allowed"], given=given)
    problem = details["msg"].removeprefix("Value error, ").replace("valid tuple", "list such as [a, b]")
    # A check of our own says itself what it does not like.
    ending = "" if details["type"] == "value_error" else f", not {given!r}"
    return UserError(where, f"{problem[0].lower()}{problem[1:]}{ending}")


def _fields_at(location: Sequence[str], schema: type[Settings]) -> Sequence[str]:
    """The keys that the schema allows at a place in the document."""
    model: Any = schema
    for part in location:
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(c for c in candidates if inspect.isclass(c) and issubclass(c, Settings))
    return list(model.model_fields)


def _apply(document: dict[str, Any], override: str) -> None:
    """Set `a.b.c=value` in the document, the value read as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(override, "an override has the form key=value, such as search.trials=20")
    *sections, last = key.split(".")
    place = document
    for section in sections:
        inner = place.setdefault(section, {})
        if inner is None:
            inner = place[section] = {}
        if not isinstance(inner, dict):
            raise UserError(key, f"{section} is a single value, it has no keys inside")
        place = inner
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(key, f"{text!r} is not a YAML value") from error


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
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_names(recipe: Recipe) -> None:
    """Refuse names that do not go together, before anything is computed."""
    search = recipe.search
    if len(set(search.objectives)) < len(search.objectives):
        raise UserError("search.objectives", f"{', '.join(search.objectives)} names one of them twice")
    known = ("accuracy", "latency_ms", *PREDICTORS)
    for name in search.named:
        if name not in known:
            where = "search.objectives" if name in search.objectives else "search.constraints"
            raise UserError(where, f"nothing is called {name!r}", allowed=known, given=name)
    for where, name in search.asked.items():
        members(name, where=where)
    users = {
        "search.accuracy": () if search.replay else (search.accuracy,),
        "search.objectives": search.objectives,
        "search.constraints": search.named,
        **{where: (name,) for where, name in search.asked.items()},
        "search.surrogate.scores": search.surrogate.scores,
        "rank.predictors": recipe.rank.predictors if recipe.rank else (),
    }
    for where, used in users.items():
        if recipe.supernet is None and any(INHERITED in name.split("+") for name in used):
            raise UserError(where, f"{INHERITED!r} needs a section supernet", allowed=(*COSTS, *SCORES))
