"""A search space by its name and options, written in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from espalier.nas.space import SearchSpace
from espalier.recipes.config.options import options_from_text
from espalier.recipes.config.registry import SPACES
from espalier.recipes.config.roles import make


def parse_space(text: str) -> tuple[str, dict[str, Any]]:
    """The name and all options of the space `NAME` or `NAME:key=value,key=value`.

    Raises:
        UserError: no such space or option.
    """
    return options_from_text(SPACES, text, where="space")


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
    space: SearchSpace = make(SPACES, name, image_shape, classes, where="space", **options)
    return space
