"""Behaviour on real images: our scores beside the published ones and beside the trained accuracies."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from torch import Tensor

from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.predictors.ranking import RankCorrelation, rank_correlation
from espalier.predictors.zero_cost.epe_nas import EPENAS
from espalier.predictors.zero_cost.fisher import Fisher
from espalier.predictors.zero_cost.grad_norm import GradNorm
from espalier.predictors.zero_cost.gradsign import GradSign
from espalier.predictors.zero_cost.jacob_cov import JacobCov
from espalier.predictors.zero_cost.l2_norm import L2Norm
from espalier.predictors.zero_cost.naswot import NASWOT
from espalier.predictors.zero_cost.predictor import zero_cost_predictors
from espalier.predictors.zero_cost.snip import SNIP
from espalier.predictors.zero_cost.synflow import SynFlow

pytestmark = pytest.mark.slow

Batch = tuple[Tensor, Tensor]
Rows = Sequence[dict[str, str]]
CELLS = 60
AGREEMENT = {
    # the published column and the least Spearman with it; two batches of one network agree no better
    "synflow": (SynFlow(), "synflow", 0.98),
    "naswot": (NASWOT(), "nwot", 0.98),
    "grad_norm": (GradNorm(), "grad_norm", 0.95),
    "snip": (SNIP(), "snip", 0.95),
    "fisher": (Fisher(), "fisher", 0.9),
    "l2_norm": (L2Norm(), "l2_norm", 0.85),
    "jacob_cov": (JacobCov(), "jacov", 0.85),
    "epe_nas": (EPENAS(), "epe_nas", 0.7),
}


@pytest.fixture(scope="module")
def rows(published_scores: Rows, benchmark_cells: Rows) -> Rows:
    """Random cells that have published scores, with the benchmark's columns beside them."""
    drawn = random.Random(0).sample(list(published_scores), CELLS)
    return [benchmark_cells[int(row["index"])] | row for row in drawn]


@pytest.fixture(scope="module")
def full_size(rows: Rows, cifar_batch: Callable[[int], Batch]) -> dict[str, list[float]]:
    """The values of all scores of the full-size networks, from shared passes."""
    space = NasBench201()
    scores = [score for score, _, _ in AGREEMENT.values()]
    predictors = zero_cost_predictors(scores, space, *cifar_batch(64), seed=0)
    by_cell = [{name: p(space.parse(row["arch"])).value for name, p in predictors.items()} for row in rows]
    return {name: [values[name] for values in by_cell] for name in predictors}


def compare(predicted: Sequence[float], rows: Rows, column: str) -> RankCorrelation:
    return rank_correlation(predicted, [float(row[column]) for row in rows], seed=0)


@pytest.mark.parametrize("name", AGREEMENT)
def test_full_size_scores_rank_as_the_published_ones(name: str, full_size: dict[str, list[float]], rows: Rows) -> None:
    _, column, least = AGREEMENT[name]
    assert compare(full_size[name], rows, column).spearman > least


@pytest.mark.parametrize("name", ["synflow", "naswot", "jacob_cov"])
def test_good_scores_rank_accuracy(name: str, full_size: dict[str, list[float]], rows: Rows) -> None:
    # the standard deviation of a correlation over draws of 60 cells is about .06
    assert compare(full_size[name], rows, "c10_test").spearman > 0.6


def test_gradsign_ranks_accuracy(rows: Rows, cifar_batch: Callable[[int], Batch]) -> None:
    # two cells a stage instead of five, half as wide, half as many images: seconds instead of minutes
    space = NasBench201(channels=8, cells=2)
    predictor = zero_cost_predictors([GradSign()], space, *cifar_batch(32), seed=0)["gradsign"]
    predicted = [predictor(space.parse(row["arch"])).value for row in rows]
    assert compare(predicted, rows, "c10_test").spearman > 0.7  # seen: .87
