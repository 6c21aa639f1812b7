"""The schema of a recipe: its sections in order."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, model_validator

from espalier.nas.objective import Constraint
from espalier.nas.settings import Settings
from espalier.recipes.config.options import method
from espalier.recipes.config.registry import COSTS, SPACES
from espalier.recipes.config.sections.budget import BudgetSettings
from espalier.recipes.config.sections.data import DataSettings
from espalier.recipes.config.sections.profile import ProfileSettings
from espalier.recipes.config.sections.rank import RankSettings
from espalier.recipes.config.sections.search import RecipeSearchSettings
from espalier.recipes.config.sections.select import SelectSettings
from espalier.recipes.config.sections.supernet import SupernetSettings
from espalier.recipes.config.sections.train import FinalTrainSettings


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
    space: method(SPACES)  # type: ignore[valid-type]
    """The networks to choose among: a name, `{name: darts, cells: 6}` with its options, or `nni:MODEL`."""
    supernet: SupernetSettings | None = None
    rank: RankSettings | None = None
    select: SelectSettings | None = None
    search: RecipeSearchSettings | None = None
    train: FinalTrainSettings | None = None
    profile: ProfileSettings = ProfileSettings()
    budget: BudgetSettings | None = None

    @property
    def limits(self) -> list[Constraint]:
        """Everything on params and MACs that the search and the budget ask for."""
        texts = self.search.constraints if self.search is not None else ()
        asked = [Constraint.parse(text, where="search.constraints") for text in texts]
        budget = self.budget.costs if self.budget is not None else {}
        return [
            *(limit for limit in asked if limit.name in COSTS),
            *(Constraint(name, "<=", bound) for name, bound in budget.items()),
        ]

    @property
    def measures_in_search(self) -> bool:
        """Whether candidates of the search are timed."""
        limited = self.budget is not None and self.budget.latency_ms is not None
        return self.search is not None and (limited or self.search.measures_latency)

    @model_validator(mode="after")
    def _something_to_find(self) -> Recipe:
        if self.search is None and self.select is None:
            raise ValueError("a recipe needs a section search or select")
        return self
