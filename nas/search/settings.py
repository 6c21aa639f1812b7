"""What a search can be told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from nas.settings import Settings

SamplerName = Literal["random", "tpe", "nsga2", "regularized_evolution"]


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
    """Architectures alive at a time, for nsga2 and regularized_evolution."""
    sample_size: PositiveInt = 5
    """Size of the tournament of regularized_evolution."""
    storage: str | None = None
    """An Optuna storage URL (`sqlite:///...`, `postgresql://...`); null keeps the study in the run folder."""
