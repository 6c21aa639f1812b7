"""How well predictors rank the architectures of a benchmark table."""

from __future__ import annotations

import math

from espalier.nas.progress import Track
from espalier.recipes.config.registry import members
from espalier.recipes.config.sections.rank import RankSettings
from espalier.recipes.engine.predictor_set import PredictorSet
from espalier.recipes.engine.ranking.prediction_cache import ValueStore, collect, with_ensembles
from espalier.recipes.engine.ranking.rows import BASELINES, ranking_rows
from espalier.recipes.engine.ranking.sample import Sample
from espalier.recipes.records.ranking import RankPoint, RankResult


def run(
    settings: RankSettings, sample: Sample, *, predictors: PredictorSet, bootstrap_seed: int, track: Track
) -> RankResult:
    """Correlates each predictor's values with the target column.

    Args:
        settings: the recipe's section `rank`.
        sample: architectures drawn from the table.
        predictors: of these architectures.
        bootstrap_seed: of the intervals.
        track: shows progress.
    """
    architectures, targets = list(sample.targets), list(sample.targets.values())
    asked = list(dict.fromkeys([*BASELINES, *settings.predictors]))
    names = [part for name in asked for part in members(name, where="rank.predictors")]
    columns = collect(architectures, predictors.make(dict.fromkeys(names)), store=ValueStore(None), track=track)
    columns = with_ensembles(columns, asked)
    return RankResult(
        table=settings.table.name,
        target=settings.target,
        samples=len(targets),
        sampling=sample.sampling,
        correlations=tuple(ranking_rows(columns, targets, seed=bootstrap_seed)),
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
