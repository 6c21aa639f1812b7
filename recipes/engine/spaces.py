"""The search space of a recipe, for its images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from espalier.nas.seeds import Seeds
from espalier.nas.space import SearchSpace
from espalier.recipes.config.options import given_options
from espalier.recipes.config.registry import SPACES
from espalier.recipes.config.roles import make


@dataclass(frozen=True)
class SpaceFactory:
    """Makes the search space of a recipe, with fresh weights each time.

    Attributes:
        settings: the recipe's section `space`.
        image_shape: `(channels, height, width)` of one image.
        classes: how many there are.
        seeds: of the weights.
    """

    settings: Any
    image_shape: tuple[int, int, int]
    classes: int
    seeds: Seeds

    @property
    def is_own(self) -> bool:
        """Whether building the space runs code that is not the platform's."""
        return self.settings.name not in SPACES or self.settings.name == "nni"

    def __call__(self, seed: int = 0) -> SearchSpace:
        """A new space on the CPU, its weights drawn from `seed`.

        Raises:
            UserError: the space does not take images of this size.
        """
        options = given_options(self.settings)
        with torch.random.fork_rng():
            torch.manual_seed(self.seeds(f"weights {seed}"))
            space: SearchSpace = make(
                SPACES, self.settings.name, self.image_shape, self.classes, where="space.name", **options
            )
        return space
