"""The content of the own methods that a section of a recipe names: a part of the keys of its stages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from espalier.nas.errors import UserError
from espalier.nas.hashing import file_hash
from espalier.nas.user_code import Reference
from espalier.recipes.config.devices import device_files
from espalier.recipes.config.options import OwnSettings
from espalier.recipes.config.registry import (
    DATA_SOURCES,
    DEVICES,
    SAMPLERS,
    SCORES,
    SPACES,
    STRATEGIES,
    predictor_parts,
)
from espalier.recipes.config.roles import Role, content_of
from espalier.recipes.config.schema import Recipe


def own_code(recipe: Recipe, section: str) -> dict[str, str]:
    """The digest of the source of each own method that a section names, by the method's name.

    The source is its file and the modules beside it that it imports.

    Args:
        recipe: the recipe.
        section: the name of one of its sections, or of a key that is no section, which names nothing.

    Raises:
        UserError: a file is missing or cannot be read.
    """
    contents = {name: content_of(role, name) for role, name in _named(recipe, section)}
    model = Reference.parse(str(getattr(recipe.space, "model", ""))) if section == "space" else None
    if model is not None:  # a model space of NNI's in a file of the user's
        contents[str(model)] = model.digest()
    if section == "profile":
        contents |= {str(path): _content(path) for path in device_files(recipe.profile.device)}
    return {name: content for name, content in sorted(contents.items()) if content is not None}


def _content(path: Path) -> str:
    try:
        return file_hash(path)
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror or error}", code="unreadable") from error


def _named(recipe: Recipe, section: str) -> Iterator[tuple[Role, str]]:
    match section:
        case "data" if isinstance(recipe.data.source, OwnSettings):
            yield DATA_SOURCES, recipe.data.source.name
        case "space":
            yield SPACES, recipe.space.name
        case "supernet" if recipe.supernet is not None:
            yield STRATEGIES, recipe.supernet.strategy.name
        case "rank" if recipe.rank is not None:
            yield from _scores(recipe.rank.predictors)
        case "search" if recipe.search is not None:
            search = recipe.search
            yield from _scores([search.accuracy, *search.named, *search.asked.values(), *search.surrogate.scores])
            if isinstance(search.sampler, OwnSettings):
                yield SAMPLERS, search.sampler.name
        case "train" if recipe.train is not None:
            yield from _scores(recipe.train.predictors)
        case "profile":
            yield DEVICES, DEVICES.split(recipe.profile.device)[0]


def _scores(names: Iterable[str]) -> Iterator[tuple[Role, str]]:
    for name in names:
        for part in predictor_parts(name):
            yield SCORES, SCORES.split(part)[0]
