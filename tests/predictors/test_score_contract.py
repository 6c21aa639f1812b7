"""What every zero-cost score keeps to; a new score in `predictors/zero_cost` is found and tested here."""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import espalier.predictors.zero_cost
from espalier.nas.errors import UserError
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.predictors.zero_cost.gradsign import GradSign
from espalier.predictors.zero_cost.grasp import GraSP
from espalier.predictors.zero_cost.naswot import NASWOT
from espalier.predictors.zero_cost.network import ScoreError, layer_weights
from espalier.predictors.zero_cost.predictor import zero_cost_predictors
from espalier.predictors.zero_cost.probe import Probe, seeded_generators
from espalier.predictors.zero_cost.score import Score
from espalier.predictors.zero_cost.score_evaluator import ScoreEvaluator, batch_hash
from espalier.testing.scores import ScoreContract, cells, predictor_of, small_cell, state
from user_errors import user_error

Batch = tuple[Tensor, Tensor]

for module in pkgutil.iter_modules(espalier.predictors.zero_cost.__path__, "espalier.predictors.zero_cost."):
    importlib.import_module(module.name)


def concrete(base: type[Score]) -> Iterator[type[Score]]:
    """All scores that can be asked."""
    for score in base.__subclasses__():
        if not inspect.isabstract(score):
            yield score
        yield from concrete(score)


SCORES = [score() for score in sorted(concrete(Score), key=lambda score: score.name)]

scores = pytest.mark.parametrize("score", SCORES, ids=lambda score: score.name)


class Constant(Score):
    """Returns what it is told, to see what the predictor makes of it."""

    name = "constant"
    needs = frozenset()
    batch_norm = "unused"

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def compute(self, probe: Probe) -> float:
        return self.values.pop(0)


def test_the_scores_are_found() -> None:
    assert {score.name for score in SCORES} >= {"gradsign", "synflow", "naswot"}
    assert len({score.name for score in SCORES}) == len(SCORES)


def test_asked_together_they_have_the_values_they_have_alone(small_space: NasBench201, grey_batch: Batch) -> None:
    architecture = cells(small_space, 1)[0]
    together = zero_cost_predictors(SCORES, small_space, *grey_batch, seed=5, repeats=2)
    for name in sorted(together, reverse=True):  # in whatever order
        alone = predictor_of(
            ScoreEvaluator(SCORES, *grey_batch, seed=0).scores[name], small_space, *grey_batch, seed=5, repeats=2
        )
        assert together[name](architecture).value == pytest.approx(alone(architecture).value, rel=1e-4), name


def test_what_is_no_logits_is_refused(grey_batch: Batch) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU())
    with user_error("network", "unsupported", says="(24, 3, 6, 6)"):
        NASWOT()(model, *grey_batch)


class Fails(Constant):
    """Raises what it is told."""

    def compute(self, probe: Probe) -> float:
        raise self.values[0]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ScoreError("layer", "is odd"), "failed"),
        (MemoryError("so much"), "out of memory"),
        (MemoryError("so much more"), "out of memory"),
    ],
)
def test_what_became_of_a_score_is_told(
    error: Exception, status: str, small_space: NasBench201, grey_batch: Batch
) -> None:
    estimate = predictor_of(Fails(error), small_space, *grey_batch, seed=0)(cells(small_space, 1)[0])
    assert estimate.status == status
    assert estimate.reason == str(error)
    assert math.isnan(estimate.value)


def test_the_reason_of_any_other_failure_names_its_kind(small_space: NasBench201, grey_batch: Batch) -> None:
    broken = Fails(RuntimeError("shapes cannot be multiplied"))
    estimate = predictor_of(broken, small_space, *grey_batch, seed=0)(cells(small_space, 1)[0])
    assert (estimate.status, estimate.reason) == ("failed", "RuntimeError: shapes cannot be multiplied")


class WritesIntoItsInput(nn.Module):
    """Normalises the images in place, as some networks do."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.mul_(0.5).add_(0.1))


@scores
def test_a_network_may_write_into_its_input(score: Score, small_space: NasBench201, grey_batch: Batch) -> None:
    model, x, y = small_cell(small_space, grey_batch)
    before = x.clone()
    if score.name not in ("gradsign", "vkdnw", "linear_regions"):  # differentiated by functions that forbid it
        assert score(WritesIntoItsInput(model), x, y) == score(WritesIntoItsInput(model), x, y)
    assert torch.equal(x, before)


def test_hard_activations_do_not_count_as_relus_in_company(grey_batch: Batch) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Hardsigmoid(), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    evaluator = ScoreEvaluator([GraSP(), NASWOT()], *grey_batch, seed=0)
    alone = ScoreEvaluator([NASWOT()], *grey_batch, seed=0)
    make = lambda: model  # noqa: E731
    together = evaluator.estimate("naswot", evaluator.probes(make)).value
    assert together == alone.estimate("naswot", alone.probes(make)).value


@pytest.mark.parametrize("name", ["zico", "meco", "naswot", "snip", "grad_norm"])
def test_a_broken_network_has_no_value(name: str, small_space: NasBench201, grey_batch: Batch) -> None:
    model, x, y = small_cell(small_space, grey_batch)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = math.nan
    assert math.isnan(next(score for score in SCORES if score.name == name)(model, x, y))


@pytest.mark.parametrize("score", [GradSign(), NASWOT()], ids=["backward", "forward"])
def test_a_score_that_takes_too_long_is_stopped(score: Score, small_space: NasBench201, grey_batch: Batch) -> None:
    architecture = cells(small_space, 1)[0]
    estimate = predictor_of(score, small_space, *grey_batch, seed=0, limit_s=1e-4)(architecture)
    assert (estimate.status, estimate.reason) == ("timed out", "longer than 0.0001 s")
    assert predictor_of(score, small_space, *grey_batch, seed=0, limit_s=1e4)(architecture).status == "ok"


def test_repeats_are_averaged(small_space: NasBench201, grey_batch: Batch) -> None:
    predictor = predictor_of(Constant(1.0, 2.0, 6.0), small_space, *grey_batch, seed=0, repeats=3)
    estimate = predictor(cells(small_space, 1)[0])
    assert estimate.value == 3.0
    assert estimate.provenance["std"] == pytest.approx(7**0.5)


@pytest.mark.parametrize("values", [(math.inf, 1.0), (math.nan, 1.0), (-math.inf, 1.0), (math.inf, -math.inf)])
def test_values_that_are_not_finite_stay(
    values: tuple[float, float], small_space: NasBench201, grey_batch: Batch
) -> None:
    predictor = predictor_of(Constant(*values), small_space, *grey_batch, seed=0, repeats=2)
    estimate = predictor(cells(small_space, 1)[0])
    assert estimate.value == sum(values) or math.isnan(estimate.value)
    assert not math.isfinite(estimate.value)
    assert estimate.status == "nan"
    assert "std" not in estimate.provenance


def test_all_generators_are_put_back() -> None:
    model = nn.Linear(1, 1)
    before = state(model)
    with seeded_generators(0, torch.device("cpu")):
        torch.rand(3), np.random.rand(3), random.random()
        assert state(model) != before
    assert state(model) == before


def test_layer_weights_are_those_of_convolutions_and_linears() -> None:
    shared = nn.Linear(3, 3)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 3, 1), shared, shared, nn.Conv1d(1, 1, 1)
    )
    assert list(layer_weights(model)) == ["0.weight", "3.weight"]
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    assert list(layer_weights(tied)) == ["0.weight"]
    assert list(layer_weights(nn.Linear(3, 3))) == ["weight"]


def test_networks_without_weights_to_score_are_refused() -> None:
    with user_error("network", "unsupported", says="Conv2d"):
        layer_weights(nn.Sequential(nn.Conv1d(1, 1, 1)))
    parametrised = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    with user_error("0", "unsupported"):
        layer_weights(parametrised)


def test_a_batch_that_does_not_fit_is_refused(small_space: NasBench201, grey_batch: Batch) -> None:
    x, y = grey_batch
    for images, labels, where in [
        (x[:, :, :4], y, "images"),
        (x[:0], y[:0], "images"),
        (x, y[:3], "labels"),
        (x, y.float(), "labels"),
        (x, y + 1, "labels"),
        (x, y - 1, "labels"),
    ]:
        with pytest.raises(UserError, match=f"^{where}: "):
            predictor_of(SCORES[0], small_space, images, labels, seed=0)
    with user_error("repeats", "out_of_range"):
        predictor_of(SCORES[0], small_space, x, y, seed=0, repeats=0)
    with user_error("seed", "out_of_range"):
        predictor_of(SCORES[0], small_space, x, y, seed=-1)


def test_the_hash_is_of_both_tensors() -> None:
    x, y = torch.zeros(2, 1, 2, 2), torch.tensor([0, 1])
    hashes = {batch_hash(x, y), batch_hash(x + 1, y), batch_hash(x, y + 1), batch_hash(x.reshape(2, 2, 2, 1), y)}
    assert len(hashes) == 4
    assert batch_hash(x.clone(), y.clone()) in hashes


class TestScores(ScoreContract):
    """The contract, for all scores."""

    @pytest.fixture(params=SCORES, ids=lambda score: score.name)
    def score(self, request: pytest.FixtureRequest) -> Score:
        score: Score = request.param
        return score
