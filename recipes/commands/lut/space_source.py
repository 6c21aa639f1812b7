"""The space of a latency table: of a recipe, by name, or as the table itself says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.run import RunFolder
from espalier.nas.space import SearchSpace
from espalier.recipes.commands import defaults
from espalier.recipes.commands.arguments import reject
from espalier.recipes.config.loading import load_recipe
from espalier.recipes.config.schema import ProfileSettings
from espalier.recipes.engine.assemble import Assembly
from espalier.recipes.inputs.named_space import make_space, parse_space


@dataclass(frozen=True)
class GivenSpace:
    """A space and where it came from.

    Attributes:
        space: on the CPU.
        origin: plain JSON, see `space_of_origin`.
        profile: how latency is measured; the recipe's, which its table has to agree with.
    """

    space: SearchSpace
    origin: Mapping[str, Any]
    profile: ProfileSettings


def given_space(
    recipe: str | None,
    overrides: Sequence[str],
    *,
    space: str | SearchSpace | None,
    image_size: int | None,
    channels: int | None,
    classes: int | None,
) -> GivenSpace:
    """The space of a recipe, for its images and classes, or a space by name or as an object.

    A recipe's supernet is not looked at, so it may name the table that is about to be made.

    Args:
        recipe: a recipe file, or the name of one that ships.
        overrides: `key=value`.
        space: `NAME` or `NAME:key=value,...`, or an object, instead of a recipe.
        image_size: height and width of an image, for a space by name.
        channels: of an image, for a space by name.
        classes: outputs of the networks, for a space by name.

    Raises:
        UserError: both or neither are given, or an argument cannot be used.
    """
    own = {"image_size": image_size, "channels": channels, "classes": classes}
    if space is None:
        if recipe is None:
            raise UserError("space", "is required, or a recipe", code="missing")
        reject(own, "needs a space; a recipe already defines it")
        return _of_recipe(recipe, overrides)
    if recipe is not None:
        raise UserError("space", "cannot be combined with a recipe, which already defines it", code="conflict")
    if isinstance(space, SearchSpace):
        reject(own, "needs a space by name; an object already defines it")
        return GivenSpace(space, {}, ProfileSettings())
    for argument, value in own.items():
        if value is not None and value < 1:
            raise UserError(argument, f"is {value}, must be at least 1", code="out_of_range")
    name, options = parse_space(space)
    side = image_size or defaults.IMAGE_SIZE
    made = make_space(name, options, (channels or defaults.CHANNELS, side, side), classes or defaults.CLASSES)
    return GivenSpace(made, _origin(name, options, made), ProfileSettings())


def _of_recipe(recipe: str, overrides: Sequence[str]) -> GivenSpace:
    assembly = Assembly(load_recipe(recipe, overrides), RunFolder(Path()))
    settings = assembly.recipe.space
    options = settings.model_dump(exclude={"name"}, mode="json")
    return GivenSpace(assembly.space, _origin(settings.name, options, assembly.space), assembly.recipe.profile)


def space_of_origin(origin: Mapping[str, Any], *, where: str) -> SearchSpace:
    """The space that a table says it belongs to.

    Raises:
        UserError: it does not say, or there is no such space.
    """
    try:
        shape, classes = tuple(map(int, origin["image_shape"])), int(origin["classes"])
        name, options = str(origin["space"]), dict(origin["options"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(where, "does not say which space it belongs to; set the space", code="missing") from error
    return make_space(name, options, shape, classes)  # type: ignore[arg-type]


def _origin(name: str, options: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    return {"space": name, "options": given, "image_shape": list(space.input_shape), "classes": space.num_classes}
