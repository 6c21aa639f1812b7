"""What `rank` returns and writes to `ranking.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


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
    predictors: Sequence[Mapping[str, Any]]
    points: Sequence[Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """As `nas rank --json` prints it."""
        found = dict(vars(self))
        return {**found.pop("about"), **found}
