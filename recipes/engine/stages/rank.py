"""How well predictors rank the architectures of a benchmark table."""

from __future__ import annotations

import math

from espalier.recipes.config.registry import members
from espalier.recipes.config.schema import RankSettings
from espalier.recipes.engine.context import Context
from espalier.recipes.engine.ranking.prediction_cache import ValueStore, collect, with_ensembles
from espalier.recipes.engine.ranking.rows import BASELINES, ranking_rows
from espalier.recipes.engine.ranking.sample import Sample, draw_sample
from espalier.recipes.records.ranking import RankPoint, RankResult


def run(context: Context) -> RankResult:
    """Draws architectures from the table and correlates each predictor's values with the target column."""
    settings = context.recipe.rank
    assert settings is not None
    sample = table_sample(context, settings)
    architectures, targets = list(sample.targets), list(sample.targets.values())
    asked = list(dict.fromkeys([*BASELINES, *settings.predictors]))
    names = [part for name in asked for part in members(name, where="rank.predictors")]
    predictors = context.predictors.make(dict.fromkeys(names))
    columns = collect(architectures, predictors, store=ValueStore(None), track=context.track)
    columns = with_ensembles(columns, asked)
    return RankResult(
        table=settings.table.name,
        target=settings.target,
        samples=len(targets),
        sampling=sample.sampling,
        correlations=tuple(ranking_rows(columns, targets, seed=context.seed("bootstrap"))),
        points=tuple(
            RankPoint(
                id=architecture.id,
                target=target,
                # JSON has no NaN: a value that is not finite is left out of the plot, but not of n
                values={n: c.numbers[i] for n, c in columns.items() if math.isfinite(c.numbers[i])},
            )
            for i, (architecture, target) in enumerate(sample.targets.items())
        ),
    )


def table_sample(context: Context, settings: RankSettings) -> Sample:
    """The architectures to rank, and their target values."""
    return draw_sample(
        settings.table,
        context.space,
        settings.target,
        settings.samples,
        unique=settings.unique,
        seed=context.seed("rank"),
        prefix="rank.",
    )
