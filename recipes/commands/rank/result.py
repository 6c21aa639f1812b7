"""What `rank` returns and writes to `ranking.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espalier.recipes.engine.ranking.rows import SIZE
from espalier.recipes.records.ranking import Correlation, RankPoint


@dataclass(frozen=True)
class Ranking:
    """How well each predictor ranks some architectures.

    Attributes:
        about: what was ranked: the table or the run, the target, the images, seeds.
        samples: how many architectures.
        sampling: how they were chosen.
        computed: how many of them something was computed for; the others were read from the output folder.
        seconds: that this took.
        predictors: a row for each, best Spearman correlation first.
        points: the target and the predicted values of each architecture.
    """

    about: Mapping[str, Any]
    samples: int
    sampling: str
    computed: int
    seconds: float
    predictors: Sequence[Correlation]
    points: Sequence[RankPoint]

    def to_dict(self) -> dict[str, Any]:
        """As `nas rank --json` prints it."""
        return {
            **self.about,
            "samples": self.samples,
            "sampling": self.sampling,
            "computed": self.computed,
            "seconds": self.seconds,
            "predictors": [_row(correlation) for correlation in self.predictors],
            "points": [point.model_dump(mode="json") for point in self.points],
        }


def _row(correlation: Correlation) -> dict[str, Any]:
    """With the interval of the rank correlation that most tables print; a predictor is not compared with itself."""
    row = {**correlation.model_dump(mode="json"), "ci95": correlation.spearman_ci95}
    if correlation.name == SIZE:
        del row["spearman_given_params"]
    return row
