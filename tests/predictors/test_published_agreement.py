"""Behaviour on real images: our scores beside the published ones and beside the trained accuracies."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from torch import Tensor

from nas.spaces.nasbench201 import NasBench201
from predictors.ranking import RankCorrelation, rank_correlation
from predictors.zero_cost.gradsign import GradSign
from predictors.zero_cost.naswot import NASWOT
from predictors.zero_cost.predictor import zero_cost_predictors
from predictors.zero_cost.score import Score
from predictors.zero_cost.synflow import SynFlow

pytestmark = pytest.mark.slow

Rows = Sequence[dict[str, str]]
CELLS = 60


@pytest.fixture(scope="module")
def rows(published_scores: Rows, benchmark_cells: Rows) -> Rows:
    """Random cells that have published scores, with the benchmark's columns beside them."""
    drawn = random.Random(0).sample(list(published_scores), CELLS)
    return [benchmark_cells[int(row["index"])] | row for row in drawn]


def values(score: Score, space: NasBench201, rows: Rows, batch: tuple[Tensor, Tensor]) -> list[float]:
    predictor = zero_cost_predictors([score], space, *batch, seed=0)[score.name]
    return [predictor(space.parse(row["arch"])).value for row in rows]


def compare(predicted: Sequence[float], rows: Rows, column: str) -> RankCorrelation:
    return rank_correlation(predicted, [float(row[column]) for row in rows], seed=0)


@pytest.mark.parametrize(("score", "column"), [(SynFlow(), "synflow"), (NASWOT(), "nwot")], ids=["synflow", "naswot"])
def test_full_size_scores_rank_as_the_published_ones(
    score: Score, column: str, rows: Rows, cifar_batch: Callable[[int], tuple[Tensor, Tensor]]
) -> None:
    predicted = values(score, NasBench201(), rows, cifar_batch(64 if "images" in score.needs else 1))
    agreement = compare(predicted, rows, column)
    accuracy = compare(predicted, rows, "c10_test")
    assert agreement.spearman > 0.98  # seen: synflow .999, naswot .995
    assert accuracy.spearman > 0.6  # seen: .77 and .78; the standard deviation over draws of cells is about .06


def test_gradsign_ranks_accuracy(rows: Rows, cifar_batch: Callable[[int], tuple[Tensor, Tensor]]) -> None:
    # two cells a stage instead of five, half as wide, half as many images: seconds instead of minutes
    space = NasBench201(channels=8, cells=2)
    predicted = values(GradSign(), space, rows, cifar_batch(32))
    accuracy = compare(predicted, rows, "c10_test")
    assert accuracy.spearman > 0.7  # seen: .87
