"""Settings of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt, model_validator

from espalier.nas.settings import Settings

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

SamplerName = Literal["random", "tpe", "nsga2", "regularized_evolution", "surrogate"]
Acquisition = Literal["mean", "ucb", "thompson", "expected_improvement"]
SURROGATE = "surrogate"
"""The name of the guide that learns from the search itself."""


class GuideSettings(Settings):
    """A predictor chooses among several proposals of the sampler; only the best one is evaluated."""

    by: str
    """The predictor's name; `surrogate` for one that is fitted to the search."""
    proposals: PositiveInt = 10
    """Proposals to choose from."""


class SurrogateSettings(Settings):
    """How a predictor that is fitted to the search chooses among proposals."""

    acquisition: Acquisition = "expected_improvement"
    """What is maximised: the mean, mean + beta std (ucb), a normal draw (thompson), or the expected improvement."""
    beta: float = Field(1.0, ge=0)
    """Weight of the standard deviation in `ucb`."""
    least_history: PositiveInt = 10
    """Complete candidates before the first fit; until then the first proposal is evaluated."""
    refit_every: PositiveInt = 5
    """New complete candidates between two fits."""
    proposals: PositiveInt = 200
    """Proposals of the sampler `surrogate`: half are mutations of the best `population_size`, half uniform draws."""


class WarmStartSettings(Settings):
    """The search starts with the best of many random architectures, by a cheap predictor."""

    by: str
    """The predictor's name."""
    candidates: PositiveInt = 1000
    """Random architectures to rank."""
    best: PositiveInt = 10
    """How many of the best to start with."""


class FilterSettings(Settings):
    """Architectures that a cheap predictor ranks low are not evaluated further."""

    by: str
    """The predictor's name."""
    keep: float = Field(0.5, gt=0, lt=1)
    """Share of random architectures that pass."""
    among: PositiveInt = 100
    """Random architectures that determine the limit, at the start of the search."""


class SearchSettings(Settings):
    """What is searched for, and how."""

    trials: PositiveInt = 100
    """Different architectures to evaluate."""
    sampler: SamplerName = "nsga2"
    """Proposes the next architecture."""
    objectives: tuple[str, ...] = Field(("accuracy", "macs"), min_length=1)
    """Values to optimise: accuracy, latency_ms, params, macs, or any predictor."""
    constraints: tuple[str, ...] = ()
    """Limits such as `params <= 0.6e6`; an architecture that violates one is not evaluated further."""
    population_size: PositiveInt = 20
    """Population of nsga2 and regularized_evolution; number of parents for surrogate."""
    sample_size: PositiveInt = 5
    """Tournament size of regularized_evolution."""
    guide: GuideSettings | None = None
    """Chooses among several proposals; null evaluates every proposal."""
    surrogate: SurrogateSettings = SurrogateSettings()
    """The predictor that is fitted to the search, if the sampler or the guide is `surrogate`."""
    warm_start: WarmStartSettings | None = None
    """Architectures to start with; null starts with the sampler's proposals."""
    filters: tuple[FilterSettings, ...] = ()
    """Rule out further architectures, besides the constraints."""
    storage: str | None = None
    """An Optuna storage URL (`sqlite:///...`, `postgresql://...`); null keeps the study in the run folder."""

    @model_validator(mode="after")
    def _one_guide(self) -> SearchSettings:
        if self.sampler == SURROGATE and self.guide is not None:
            raise ValueError("the sampler surrogate is its own guide and cannot be combined with another one")
        return self

    def own_sampler(self, seed: int) -> BaseSampler | None:
        """A sampler that is none of those above, where a subclass lets one be named; its draws begin at the seed."""
        return None

    @property
    def learns(self) -> bool:
        """Whether the search needs a surrogate."""
        return self.sampler == SURROGATE or (self.guide is not None and self.guide.by == SURROGATE)

    @property
    def scores(self) -> tuple[str, ...]:
        """The predictors of guide, warm start and filters, without duplicates."""
        parts = (self.warm_start, self.guide, *self.filters)
        return tuple(dict.fromkeys(part.by for part in parts if part is not None and part.by != SURROGATE))
