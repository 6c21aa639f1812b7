"""The space that a table is for: of a recipe, by name, or as a table says itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.progress import silent
from espalier.nas.run import RunFolder
from espalier.nas.space import SearchSpace
from espalier.recipes.cli.options import refuse
from espalier.recipes.config.loading import load_recipe
from espalier.recipes.config.schema import ProfileSettings
from espalier.recipes.engine.runner import new_context
from espalier.recipes.inputs.score_batch import make_space, space_options

IMAGE_SIZE, CHANNELS, CLASSES = 32, 3, 10


@dataclass(frozen=True)
class GivenSpace:
    """A space and how it was asked for.

    Attributes:
        space: on the CPU.
        origin: plain JSON, see `space_of_origin`.
        profile: how latency is measured there; the recipe's, which a table of it has to agree with.
    """

    space: SearchSpace
    origin: Mapping[str, Any]
    profile: ProfileSettings


def given_space(
    recipe: str | None,
    overrides: Sequence[str],
    *,
    space: str | None,
    image_size: int | None,
    channels: int | None,
    classes: int | None,
) -> GivenSpace:
    """The space of a recipe, for its images and classes, or a space by name; the arguments are those of the command.

    A recipe's supernet is not looked at, so it may name the table that is about to be made.

    Raises:
        UserError: both or neither, or what is wrong with the one given.
    """
    own = {"--image-size": image_size, "--channels": channels, "--classes": classes}
    if space is None:
        if recipe is None:
            raise UserError("--space", "is missing: a space, or a recipe")
        refuse(own, "goes with --space; a recipe has its images")
        context = new_context(load_recipe(recipe, overrides), RunFolder(Path()), silent)
        settings = context.recipe.space
        options = settings.model_dump(exclude={"name"}, mode="json")
        return GivenSpace(context.space, _origin(settings.name, options, context.space), context.recipe.profile)
    if recipe is not None:
        raise UserError("--space", "goes without a recipe, which has its own")
    for name, value in own.items():
        if value is not None and value < 1:
            raise UserError(name, f"is {value}, must be at least 1")
    name, options = space_options(space)
    shape = (channels or CHANNELS, image_size or IMAGE_SIZE, image_size or IMAGE_SIZE)
    made = make_space(name, options, shape, classes or CLASSES)
    return GivenSpace(made, _origin(name, options, made), ProfileSettings())


def space_of_origin(origin: Mapping[str, Any], *, where: str) -> SearchSpace:
    """The space that a table says it is of.

    Raises:
        UserError: it does not say it, or there is no such space.
    """
    try:
        shape, classes = tuple(map(int, origin["image_shape"])), int(origin["classes"])
        name, options = str(origin["space"]), dict(origin["options"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(where, "does not say of which space it is; --space does") from error
    return make_space(name, options, shape, classes)  # type: ignore[arg-type]


def _origin(name: str, options: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    given = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    return {"space": name, "options": given, "image_shape": list(space.input_shape), "classes": space.num_classes}
