"""A search space by its name and options, written in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from espalier.nas.errors import UserError
from espalier.nas.space import SearchSpace
from espalier.recipes.config.registry import SPACES
from espalier.recipes.config.registry import load as component
from espalier.recipes.config.schema import options_of
from espalier.recipes.config.validation_errors import first_cause


def parse_space(text: str) -> tuple[str, dict[str, Any]]:
    """The name and all options of the space `NAME` or `NAME:key=value,key=value`.

    Raises:
        UserError: no such space or option.
    """
    name, _, options = text.partition(":")
    component(SPACES, name, where="space")
    pairs: dict[str, Any] = {}
    for option in filter(None, _between_commas(options)):
        key, equals, value = option.partition("=")
        if not equals:
            raise UserError("space", f"{option!r} is not of the form key=value")
        try:
            pairs[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"space.{key}", f"{value!r} is not a YAML value") from error
    schema = options_of(SPACES, name, "space")
    try:
        settings = schema.model_validate({"name": name, **pairs})
    except ValidationError as error:
        raise first_cause(error, schema).below("space") from error
    return name, settings.model_dump(exclude={"name"})


def make_space(name: str, options: Mapping[str, Any], image_shape: tuple[int, int, int], classes: int) -> SearchSpace:
    """The space of that name, with fresh weights.

    Args:
        name: of the space.
        options: its keyword-only arguments.
        image_shape: `(channels, height, width)`.
        classes: outputs of its networks.

    Raises:
        UserError: no such space, or it does not take images of this size.
    """
    space: SearchSpace = component(SPACES, name, where="space")(image_shape, classes, **options)
    return space


def _between_commas(text: str) -> list[str]:
    """The parts of a text between commas that are not inside brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
