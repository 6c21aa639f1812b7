"""`search`: the search itself, what it learns from, and what it searches beside the architecture."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from espalier.nas.objective import Constraint
from espalier.nas.search.settings import SURROGATE, SamplerName, SearchSettings, SurrogateSettings
from espalier.nas.settings import Settings
from espalier.nas.spaces.deployed import Precision
from espalier.predictors.encoding import ENCODINGS
from espalier.predictors.learned_predictor import MIN_HISTORY
from espalier.predictors.regressors import MODELS
from espalier.recipes.config.options import Named, OwnSettings, given_options
from espalier.recipes.config.predictor_name import PredictorName
from espalier.recipes.config.registry import INHERITED, SAMPLERS
from espalier.recipes.config.roles import load, make


class RecipeSurrogateSettings(SurrogateSettings):
    """The predictor that learns from the search, and how it chooses among proposals."""

    model: Literal[*MODELS] = "gp"  # type: ignore[valid-type]
    """The kind of regression: a Gaussian process, a forest, boosted trees, or a Bayesian ridge regression."""
    encodings: tuple[Literal[*ENCODINGS], ...] = ("one_hot",)  # type: ignore[valid-type]
    """How architectures become numbers: their options, their paths from input to output, or their graph."""
    scores: tuple[PredictorName, ...] = ()
    """Predictors whose values it learns from as well; each is asked about every proposal."""
    least_history: int = Field(10, ge=MIN_HISTORY)
    """Complete candidates before anything is learnt; until then proposals are taken as they come."""

    @model_validator(mode="after")
    def _something_to_learn_from(self) -> RecipeSurrogateSettings:
        if not self.encodings and not self.scores:
            raise ValueError("a surrogate needs an encoding or a score to learn from")
        return self


class ReplaySettings(Settings):
    """A benchmark table that stands in for training: `accuracy` is looked up, and time passes as the table says."""

    table: Path
    """A CSV file, gzipped or not, with a column `arch` in the notation of the space."""
    accuracy: str
    """The column that is `accuracy` to the search."""
    seconds: str | None = None
    """The column with the seconds that finding it out took; null lets no time pass."""


class DeploySettings(Settings):
    """How found networks are to run, searched together with their architecture."""

    precision: tuple[Precision, ...] = Field(("fp32", "int8"), min_length=1)
    """Forms of the exported file to choose among."""
    sparsity: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field((0.0,), min_length=1)
    """Shares of zeros among the weights to choose among."""

    @field_validator("precision", "sparsity")
    @classmethod
    def _each_once(cls, options: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(options)) < len(options):
            raise ValueError(f"{', '.join(map(str, options))} names one of them twice")
        return options


class RecipeSearchSettings(SearchSettings):
    """The search."""

    sampler: Annotated[SamplerName, Named(SAMPLERS, ("seed",), as_text=True)] = "nsga2"
    """What proposes the next architecture: a name, or the class of another sampler, with its options."""
    accuracy: PredictorName = INHERITED
    """The predictor that stands for `accuracy` during the search."""
    surrogate: RecipeSurrogateSettings = RecipeSurrogateSettings()
    """The predictor that learns from the search, where the sampler or the guide is `surrogate`."""
    replay: ReplaySettings | None = None
    """A table to take `accuracy` from instead."""
    deploy: DeploySettings | None = None
    """Search precision and sparsity with the architecture; candidates are pruned, quantised, and judged as such."""

    def own_sampler(self, seed: int) -> Any:
        """The own sampler of the recipe, if it names one; it gets the seed if its constructor takes one.

        Raises:
            UserError: it raises.
        """
        if not isinstance(self.sampler, OwnSettings):
            return None
        name, options = self.sampler.name, given_options(self.sampler)
        takes = inspect.signature(load(SAMPLERS, name, where="search.sampler")).parameters
        seeds = {"seed": seed} if "seed" in takes else {}
        return make(SAMPLERS, name, where="search.sampler", **options, **seeds)

    @property
    def named(self) -> tuple[str, ...]:
        """Everything that objectives and constraints name, each once."""
        constraints = (Constraint.parse(text, where="search.constraints").name for text in self.constraints)
        return tuple(dict.fromkeys([*self.objectives, *constraints]))

    @property
    def asked(self) -> dict[str, str]:
        """The predictors that guide, warm start and filters name, by the key that names them."""
        keys = {f"filters.{i}": one.by for i, one in enumerate(self.filters)}
        if self.warm_start is not None:
            keys["warm_start"] = self.warm_start.by
        if self.guide is not None and self.guide.by != SURROGATE:
            keys["guide"] = self.guide.by
        return {f"search.{key}.by": name for key, name in keys.items()}

    @property
    def measures_latency(self) -> bool:
        """Whether candidates are timed, or written for the device."""
        return "latency_ms" in self.named or self.deploy is not None
