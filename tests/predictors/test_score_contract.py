"""What every zero-cost score keeps to; a new score in `predictors/zero_cost` is found and tested here."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
import pkgutil
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import espalier.predictors.zero_cost
from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.predictor import Predictor
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.predictors.zero_cost.gradsign import GradSign
from espalier.predictors.zero_cost.grasp import GraSP
from espalier.predictors.zero_cost.naswot import NASWOT
from espalier.predictors.zero_cost.network import ScoreError, layer_weights
from espalier.predictors.zero_cost.predictor import ZeroCostPredictor, zero_cost_predictors
from espalier.predictors.zero_cost.probe import Probe, seeded_generators
from espalier.predictors.zero_cost.score import Score
from espalier.predictors.zero_cost.score_evaluator import ScoreEvaluator, batch_hash
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


def predictor_of(score: Score, space: NasBench201, x: Tensor, y: Tensor, **options: Any) -> ZeroCostPredictor:
    return zero_cost_predictors([score], space, x, y, **options)[score.name]


def cells(space: NasBench201, n: int, seed: int = 3) -> list[Architecture]:
    generator = torch.Generator().manual_seed(seed)
    return [space.sample(generator) for _ in range(n)]


def small_cell(space: NasBench201, batch: Batch) -> tuple[nn.Module, Tensor, Tensor]:
    x, y = batch
    return space.build(cells(space, 1)[0]), x, y


def mobilenet(space: NasBench201, batch: Batch) -> tuple[nn.Module, Tensor, Tensor]:
    import timm

    # 64 x 64: at 32 x 32 its last batch norms see single pixels, for which GradSign is not defined
    x = torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return timm.create_model("mobilenetv3_small_050", num_classes=10), x, torch.arange(16) // 2  # two images of a class


def state(model: nn.Module, *tensors: Tensor) -> str:
    """A digest of all a score might disturb: weights, buffers, gradients, flags, the batch, random generators."""
    digest = hashlib.sha256()
    for name, value in [*model.state_dict().items(), *enumerate(tensors)]:
        digest.update(f"{name}{value.dtype}{value.requires_grad}".encode() + value.numpy().tobytes())
    for name, parameter in model.named_parameters():
        gradient = "" if parameter.grad is None else parameter.grad.numpy().tobytes()
        digest.update(f"{name}{parameter.requires_grad}{gradient!r}".encode())
    digest.update(str([(name, module.training) for name, module in model.named_modules()]).encode())
    digest.update(torch.get_rng_state().numpy().tobytes())
    digest.update(f"{random.getstate()}{np.random.get_state()}".encode())
    digest.update(f"{torch.is_grad_enabled()}{torch.get_default_dtype()}".encode())
    return digest.hexdigest()


def test_the_scores_are_found() -> None:
    assert {score.name for score in SCORES} >= {"gradsign", "synflow", "naswot"}
    assert len({score.name for score in SCORES}) == len(SCORES)


@scores
def test_declares_itself(score: Score) -> None:
    assert isinstance(score.higher_is_better, bool)
    assert score.needs <= {"images", "labels", "loss", "activations"}
    assert score.batch_norm in ("each image", "batch", "removed", "unused")
    assert type(score).__doc__


@scores
@pytest.mark.parametrize("network", [small_cell, mobilenet])
def test_scores_a_network_and_leaves_it_as_it_was(
    score: Score, network: Callable[..., tuple[nn.Module, Tensor, Tensor]], small_space: NasBench201, grey_batch: Batch
) -> None:
    model, x, y = network(small_space, grey_batch)
    model.train()
    next(iter(model.children())).eval()  # flags of all kinds, to be kept
    first, *_, last = model.parameters()
    first.requires_grad_(False)
    last.grad = torch.ones_like(last)
    before = state(model, x, y)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        value = score(model, x, y)
        before_again = state(model, x, y)
    assert state(model, x, y) == before
    assert math.isfinite(value)
    assert isinstance(value, float)
    with torch.no_grad():
        assert before_again == state(model, x, y)  # the caller's no_grad is still on inside
    model.train().requires_grad_(True)
    assert score(model, x, y) == value  # whatever flags, gradients and autocast the caller had


@scores
@pytest.mark.parametrize("network", [small_cell, mobilenet])
def test_reads_only_what_it_declares(
    score: Score, network: Callable[..., tuple[nn.Module, Tensor, Tensor]], small_space: NasBench201, grey_batch: Batch
) -> None:
    model, x, y = network(small_space, grey_batch)
    value = score(model, x, y)
    assert (score(model, x, y // 2) == value) == ("labels" not in score.needs)
    assert (score(model, x.flip(3) * 2 + x, y) == value) == ("images" not in score.needs)


@scores
def test_estimates_depend_on_the_seed_and_not_on_the_order(
    score: Score, small_space: NasBench201, grey_batch: Batch
) -> None:
    architectures = cells(small_space, 4)
    first = predictor_of(score, small_space, *grey_batch, seed=5)
    forwards = [first(a) for a in architectures]
    torch.manual_seed(99)
    np.random.seed(99)
    second = predictor_of(score, small_space, *grey_batch, seed=5)
    backwards = [second(a) for a in reversed(architectures)]
    assert forwards == backwards[::-1]
    assert forwards[0] == first(architectures[0])
    other_seed = predictor_of(score, small_space, *grey_batch, seed=6)
    assert [e.value for e in forwards] != [other_seed(a).value for a in architectures]
    assert len({e.value for e in forwards}) > 1


def test_asked_together_they_have_the_values_they_have_alone(small_space: NasBench201, grey_batch: Batch) -> None:
    architecture = cells(small_space, 1)[0]
    together = zero_cost_predictors(SCORES, small_space, *grey_batch, seed=5, repeats=2)
    for name in sorted(together, reverse=True):  # in whatever order
        alone = predictor_of(
            ScoreEvaluator(SCORES, *grey_batch, seed=0).scores[name], small_space, *grey_batch, seed=5, repeats=2
        )
        assert together[name](architecture).value == pytest.approx(alone(architecture).value, rel=1e-4), name


class WithFeatures(nn.Module):
    """Returns its logits and something else, as some libraries' networks do."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(x), x


@scores
def test_logits_may_come_with_something_else(score: Score, small_space: NasBench201, grey_batch: Batch) -> None:
    model, x, y = small_cell(small_space, grey_batch)
    assert score(WithFeatures(model), x, y) == score(model, x, y)


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


@scores
def test_the_predictor_leaves_space_batch_and_generators_alone(
    score: Score, small_space: NasBench201, grey_batch: Batch
) -> None:
    predictor = predictor_of(score, small_space, *grey_batch, seed=5, repeats=2)
    before = state(small_space, *grey_batch)
    predictor(cells(small_space, 1)[0])
    assert state(small_space, *grey_batch) == before


@scores
def test_the_estimate_tells_how_to_get_it_again(score: Score, small_space: NasBench201, grey_batch: Batch) -> None:
    x, y = grey_batch
    predictor: Predictor = predictor_of(score, small_space, x, y, seed=5, repeats=3)
    architecture = cells(small_space, 1)[0]
    estimate = predictor(architecture)
    assert (estimate.name, estimate.unit, estimate.higher_is_better) == (score.name, "", score.higher_is_better)
    assert estimate.status == "ok"
    assert set(estimate.provenance) == {"seed", "repeats", "images", "batch_hash", "std"}
    assert estimate.provenance["seed"] == 5
    assert estimate.provenance["repeats"] == 3
    assert estimate.provenance["images"] == len(x)
    assert estimate.provenance["batch_hash"] == batch_hash(x, y)
    assert float(estimate.provenance["std"]) > 0
    once = predictor_of(score, small_space, x, y, seed=5)(architecture)
    assert "std" not in once.provenance


@scores
def test_the_batch_is_frozen(score: Score, small_space: NasBench201, grey_batch: Batch) -> None:
    x, y = grey_batch[0].clone(), grey_batch[1].clone()
    predictor = predictor_of(score, small_space, x, y, seed=5)
    x.zero_()
    y.zero_()
    reference = predictor_of(score, small_space, *grey_batch, seed=5)
    architecture = cells(small_space, 1)[0]
    assert predictor(architecture) == reference(architecture)


@scores
def test_a_cell_without_any_path_has_a_value_or_a_status(
    score: Score, small_space: NasBench201, grey_batch: Batch
) -> None:
    architecture = Architecture(dict.fromkeys(small_space.choices(), "none"))
    estimate = predictor_of(score, small_space, *grey_batch, seed=5, repeats=2)(architecture)
    assert (estimate.status == "ok") == math.isfinite(estimate.value)


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
