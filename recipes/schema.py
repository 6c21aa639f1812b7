"""The schema of a recipe, and how a file becomes one: read, override, scale, check."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, create_model

from nas.data import SOURCES, SplitFractions
from nas.errors import UserError
from nas.search.loop import SearchSettings
from nas.settings import Settings
from nas.training import TrainSettings
from recipes.components import COSTS, DEVICES, INHERITED, PREDICTORS, SCORES, SPACES, STRATEGIES, load
from recipes.shipped import find_recipe

NamedPredictor = Literal[*PREDICTORS]  # type: ignore[valid-type]


class DataSettings(Settings):
    """The images, and what each part of them is for."""

    source: Literal[*SOURCES]  # type: ignore[valid-type]
    """The kind of source."""
    path: Path | None = None
    """File or folder of the training images; `digits` has none."""
    test_path: Path | None = None
    """File or folder of the test images, where `path` does not lead to them."""
    size: PositiveInt | None = None
    """Height and width to resize all images to; null keeps them."""
    limit: PositiveInt | None = None
    """Use only this many training and test images, with the same balance of classes."""
    split: SplitFractions
    """Shares of the images; `test` is 0 where the source brings its own test images."""


class SupernetSettings(TrainSettings):
    """Training of the weights that all architectures share."""

    strategy: Literal[*STRATEGIES] = "spos"  # type: ignore[valid-type]
    """How the weights are shared while they are trained."""


class RankSettings(Settings):
    """How well predictors rank the architectures of a benchmark table."""

    table: Path
    """A CSV file, gzipped or not, with a column `arch` in the notation of the space."""
    target: str
    """The column with the true accuracy."""
    samples: PositiveInt = 200
    """Different architectures to draw from the table."""
    predictors: tuple[NamedPredictor, ...] = ("params", "macs", INHERITED)
    """Predictors to compare."""


class RecipeSearchSettings(SearchSettings):
    """The search."""

    accuracy: NamedPredictor = INHERITED
    """The predictor that stands for `accuracy` during the search."""


class FinalTrainSettings(TrainSettings):
    """Training of chosen architectures alone, from fresh weights."""

    front: PositiveInt = 4
    """Architectures to take from the Pareto front, spread along it."""
    random: int = Field(0, ge=0)
    """Further architectures drawn at random from those evaluated, as a control and for the predictors' correlations."""
    predictors: tuple[NamedPredictor, ...] = tuple(PREDICTORS)
    """Predictors to compare with the accuracies reached."""


class ProfileSettings(Settings):
    """How latency is measured."""

    device: Literal[*DEVICES] = "local"  # type: ignore[valid-type]
    """Where to run."""
    threads: PositiveInt | None = None
    """Threads of the runtime; null takes one for each physical core."""
    batch: PositiveInt = 1
    """Images in one run."""
    sessions: int = Field(5, ge=2)
    """Fresh sessions of the runtime; what differs between them is the uncertainty."""
    seconds: PositiveFloat = 2.0
    """Time budget for the timed runs of one network."""
    search_seconds: PositiveFloat = 0.3
    """The same during the search, where `latency_ms` is asked for."""


def _space_settings(name: str) -> type[Settings]:
    """The settings of a space are the keyword-only arguments of its constructor."""
    parameters = inspect.signature(load(SPACES, name, where="space.name"), eval_str=True).parameters.values()
    fields: dict[str, Any] = {
        p.name: (p.annotation, p.default) for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    return create_model(f"{name}_space", __base__=Settings, name=(Literal[name], name), **fields)


SPACE_SETTINGS = {name: _space_settings(name) for name in SPACES}
AnySpace = Annotated[reduce(lambda a, b: a | b, SPACE_SETTINGS.values()), Field(discriminator="name")]  # type: ignore[arg-type,return-value]
if len(SPACE_SETTINGS) == 1:  # a discriminator needs two to tell apart
    AnySpace = next(iter(SPACE_SETTINGS.values()))  # type: ignore[misc]


class Recipe(Settings):
    """A run from data to checked, timed networks. A section that is left out is a stage that is not run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Short name; part of the run folder's."""
    description: str = ""
    """What the recipe is for, in a sentence."""
    seed: int = Field(0, ge=0)
    """Of everything that is drawn at random."""
    scale: PositiveFloat = 1.0
    """Size of the run: a value written `{full: F, least: L}` becomes max(L, round(F * scale))."""
    data: DataSettings
    space: AnySpace  # type: ignore[valid-type]
    supernet: SupernetSettings | None = None
    rank: RankSettings | None = None
    search: RecipeSearchSettings
    train: FinalTrainSettings
    profile: ProfileSettings = ProfileSettings()


def load_recipe(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, or the one of that name that ships, with `key=value` overrides.

    Raises:
        UserError: no such recipe, not YAML, a wrong override, or anything the schema refuses (the first cause).
    """
    path = find_recipe(recipe)
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(str(path), f"not a readable YAML file ({' '.join(str(error).split())})") from error
    return recipe_from(document, overrides, where=str(path))


def recipe_from(document: Any, overrides: Sequence[str] = (), *, where: str = "recipe") -> Recipe:
    """A recipe from a parsed document."""
    if not isinstance(document, dict):
        raise UserError(where, "a recipe is a mapping of sections", allowed=Recipe.model_fields)
    for override in overrides:
        _apply(document, override)
    scale = document.get("scale", 1.0)
    if not isinstance(scale, int | float) or not scale > 0:
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


def json_schema() -> str:
    """The JSON schema of recipes, for editors. Every whole number may also be written `{full: F, least: L}`."""
    schema = Recipe.model_json_schema()
    schema["$defs"]["Scaled"] = {
        "type": "object",
        "properties": {"full": {"type": "number"}, "least": {"type": "integer"}},
        "required": ["full", "least"],
        "additionalProperties": False,
    }
    return json.dumps(_allow_scaled(schema), indent=2)


def _allow_scaled(value: Any) -> Any:
    if isinstance(value, list):
        return [_allow_scaled(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "integer":
        text = {key: value[key] for key in ("title", "description", "default") if key in value}
        number = {key: inner for key, inner in value.items() if key not in text}
        return {**text, "anyOf": [number, {"$ref": "#/$defs/Scaled"}]}
    return {key: inner if key == "Scaled" else _allow_scaled(inner) for key, inner in value.items()}


def first_cause(error: ValidationError) -> UserError:
    """The first of pydantic's complaints, as a user wants to read it."""
    details = error.errors(include_url=False)[0]
    location = [str(part) for part in details["loc"]]
    if details["type"] == "extra_forbidden":
        siblings = _fields_at(location[:-1])
        return UserError(".".join(location), "unknown key", allowed=siblings, given=location[-1])
    where = ".".join(location) or "recipe"
    if details["type"] == "missing":
        return UserError(where, "is missing")
    given = details["input"]
    if details["type"] == "literal_error":
        allowed = [part.strip(" '") for part in details["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return UserError(where, f"{given!r} is not possible", allowed=allowed, given=given)
    problem = details["msg"].removeprefix("Value error, ")
    return UserError(where, f"{problem[0].lower()}{problem[1:]}, not {given!r}")


def _fields_at(location: Sequence[str]) -> Sequence[str]:
    """The keys that the schema allows at a place in the document."""
    model: Any = Recipe
    for part in location:
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        model = next(c for c in candidates if inspect.isclass(c) and issubclass(c, Settings))
    return list(model.model_fields)


def _apply(document: dict[str, Any], override: str) -> None:
    """Set `a.b.c=value` in the document, the value read as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key:
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


def _scaled(value: Any, scale: float) -> Any:
    """The document with every `{full: F, least: L}` replaced by a whole number."""
    if isinstance(value, dict):
        if value.keys() == {"full", "least"}:
            return max(int(value["least"]), round(float(value["full"]) * scale))
        return {key: _scaled(inner, scale) for key, inner in value.items()}
    return [_scaled(inner, scale) for inner in value] if isinstance(value, list) else value


def _check_names(recipe: Recipe) -> None:
    """Refuse names that do not go together, before anything is computed."""
    from timm.optim import list_optimizers

    from nas.objective import Constraint

    trainings = {"train": recipe.train, "supernet": recipe.supernet}
    for section, training in trainings.items():
        if training is not None and training.optimizer not in (names := list_optimizers()):
            where = f"{section}.optimizer"
            raise UserError(where, f"nothing is called {training.optimizer!r}", allowed=names, given=training.optimizer)

    if recipe.supernet is None:
        users = {
            "search.accuracy": (recipe.search.accuracy,),
            "rank.predictors": recipe.rank.predictors if recipe.rank else (),
        }
        for where, names in users.items():
            if INHERITED in names:
                raise UserError(where, f"{INHERITED!r} needs a section supernet", allowed=(*COSTS, *SCORES))
    known = ("accuracy", "latency_ms", *PREDICTORS)
    constraints = [Constraint.parse(c, where="search.constraints").name for c in recipe.search.constraints]
    for where, names in {"search.objectives": recipe.search.objectives, "search.constraints": constraints}.items():
        for name in names:
            if name not in known:
                raise UserError(where, f"nothing is called {name!r}", allowed=known, given=name)
