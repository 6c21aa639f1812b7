"""What a search can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from espalier.nas.settings import Settings

SamplerName = Literal["random", "tpe", "nsga2", "regularized_evolution", "surrogate"]
Acquisition = Literal["mean", "ucb", "thompson", "expected_improvement"]
SURROGATE = "surrogate"
"""The name of the guide that learns from the search itself."""


class GuideSettings(Settings):
    """Of several proposals of the sampler, only the one that a predictor likes best is evaluated."""

    by: str
    """The predictor's name; `surrogate` for the one that learns from the search."""
    proposals: PositiveInt = 10
    """Proposals to choose from."""


class SurrogateSettings(Settings):
    """How a predictor that learns from the search chooses among proposals."""

    acquisition: Acquisition = "expected_improvement"
    """What is largest for the one chosen: the mean, mean + beta std, a normal draw, or the expected improvement."""
    beta: float = Field(1.0, ge=0)
    """Weight of the standard deviation in `ucb`."""
    least_history: PositiveInt = 10
    """Complete candidates before anything is learnt; until then proposals are taken as they come."""
    refit_every: PositiveInt = 5
    """New complete candidates between two fits."""
    proposals: PositiveInt = 200
    """Proposals to choose from with the sampler `surrogate`: half near the best `population_size`, half anywhere."""


class WarmStartSettings(Settings):
    """The search begins with the best of many random architectures by a cheap predictor."""

    by: str
    """The predictor's name."""
    candidates: PositiveInt = 1000
    """Random architectures to ask it about."""
    best: PositiveInt = 10
    """Those to begin with."""


class FilterSettings(Settings):
    """Architectures that a cheap predictor ranks low are not evaluated further."""

    by: str
    """The predictor's name."""
    keep: float = Field(0.5, gt=0, lt=1)
    """The share of random architectures that would pass."""
    among: PositiveInt = 100
    """Random architectures that the limit is found with, at the start."""


class SearchSettings(Settings):
    """What is looked for, and how."""

    trials: PositiveInt = 100
    """Different architectures to evaluate."""
    sampler: SamplerName = "nsga2"
    """Who proposes the next architecture."""
    objectives: tuple[str, ...] = Field(("accuracy", "macs"), min_length=1)
    """Names of what is improved: accuracy, latency_ms, params, macs, or any predictor."""
    constraints: tuple[str, ...] = ()
    """Limits such as `params <= 0.6e6`; an architecture that breaks one is not evaluated further."""
    population_size: PositiveInt = 20
    """Architectures alive at a time, for nsga2 and regularized_evolution; those to start from, for surrogate."""
    sample_size: PositiveInt = 5
    """Size of the tournament of regularized_evolution."""
    guide: GuideSettings | None = None
    """Who chooses among several proposals; null takes each as it comes."""
    surrogate: SurrogateSettings = SurrogateSettings()
    """The predictor that learns from the search, where the sampler or the guide is `surrogate`."""
    warm_start: WarmStartSettings | None = None
    """What the search begins with; null for what the sampler proposes."""
    filters: tuple[FilterSettings, ...] = ()
    """What rules architectures out besides the constraints."""
    storage: str | None = None
    """An Optuna storage URL (`sqlite:///...`, `postgresql://...`); null keeps the study in the run folder."""

    @model_validator(mode="after")
    def _one_guide(self) -> SearchSettings:
        if self.sampler == SURROGATE and self.guide is not None:
            raise ValueError("the sampler surrogate is its own guide; set no other")
        return self

    @property
    def learns(self) -> bool:
        """Whether a surrogate is needed."""
        return self.sampler == SURROGATE or (self.guide is not None and self.guide.by == SURROGATE)

    @property
    def scores(self) -> tuple[str, ...]:
        """The predictors that guide, warm start and filters name, each once."""
        parts = (self.warm_start, self.guide, *self.filters)
        return tuple(dict.fromkeys(part.by for part in parts if part is not None and part.by != SURROGATE))
