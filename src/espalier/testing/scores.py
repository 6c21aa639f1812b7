"""What every zero-cost score must do."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from espalier.nas.architecture import Architecture
from espalier.nas.predictor import Predictor
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.predictors.zero_cost.predictor import ZeroCostPredictor, zero_cost_predictors
from espalier.predictors.zero_cost.score import Score
from espalier.predictors.zero_cost.score_evaluator import batch_hash

Batch = tuple[Tensor, Tensor]


def predictor_of(score: Score, space: NasBench201, x: Tensor, y: Tensor, **options: Any) -> ZeroCostPredictor:
    """The score as a predictor of a space's architectures."""
    return zero_cost_predictors([score], space, x, y, **options)[score.name]


def cells(space: NasBench201, n: int, seed: int = 3) -> list[Architecture]:
    """Architectures of the space, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    return [space.sample(generator) for _ in range(n)]


def small_cell(space: NasBench201, batch: Batch) -> tuple[nn.Module, Tensor, Tensor]:
    """A network of the small space, with the batch."""
    x, y = batch
    return space.build(cells(space, 1)[0]), x, y


def mobilenet(space: NasBench201, batch: Batch) -> tuple[nn.Module, Tensor, Tensor]:
    """A network of another kind, with images that it takes."""
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


class WithFeatures(nn.Module):
    """Returns its logits and something else, as some libraries' networks do."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(x), x


class ScoreContract:
    """The contract of a zero-cost score. A subclass overrides the fixture `score`."""

    depends_on_weights = True
    """Whether the value changes with the initial weights; of a count of parameters, it does not."""

    @pytest.fixture
    def score(self) -> Score:
        """The score to test."""
        raise NotImplementedError

    @pytest.fixture
    def small_space(self) -> NasBench201:
        """NAS-Bench-201 with a single narrow cell."""
        return NasBench201((1, 8, 8), 10, channels=4, cells=1)

    @pytest.fixture
    def grey_batch(self) -> Batch:
        """24 random grey images of 8 x 8 with labels from 0 to 9."""
        generator = torch.Generator().manual_seed(7)
        return torch.randn(24, 1, 8, 8, generator=generator), torch.arange(24) % 10

    def test_declares_itself(self, score: Score) -> None:
        assert isinstance(score.higher_is_better, bool)
        assert score.needs <= {"images", "labels", "loss", "activations"}
        assert score.batch_norm in ("each image", "batch", "removed", "unused")
        assert type(score).__doc__

    @pytest.mark.parametrize("network", [small_cell, mobilenet])
    def test_scores_a_network_and_leaves_it_as_it_was(
        self,
        score: Score,
        network: Callable[..., tuple[nn.Module, Tensor, Tensor]],
        small_space: NasBench201,
        grey_batch: Batch,
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

    @pytest.mark.parametrize("network", [small_cell, mobilenet])
    def test_reads_only_what_it_declares(
        self,
        score: Score,
        network: Callable[..., tuple[nn.Module, Tensor, Tensor]],
        small_space: NasBench201,
        grey_batch: Batch,
    ) -> None:
        model, x, y = network(small_space, grey_batch)
        value = score(model, x, y)
        assert (score(model, x, y // 2) == value) == ("labels" not in score.needs)
        assert (score(model, x.flip(3) * 2 + x, y) == value) == ("images" not in score.needs)

    def test_estimates_depend_on_the_seed_and_not_on_the_order(
        self, score: Score, small_space: NasBench201, grey_batch: Batch
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
        values = [other_seed(a).value for a in architectures]
        assert (values != [e.value for e in forwards]) == self.depends_on_weights
        assert len({e.value for e in forwards}) > 1

    def test_logits_may_come_with_something_else(
        self, score: Score, small_space: NasBench201, grey_batch: Batch
    ) -> None:
        model, x, y = small_cell(small_space, grey_batch)
        assert score(WithFeatures(model), x, y) == score(model, x, y)

    def test_the_predictor_leaves_space_batch_and_generators_alone(
        self, score: Score, small_space: NasBench201, grey_batch: Batch
    ) -> None:
        predictor = predictor_of(score, small_space, *grey_batch, seed=5, repeats=2)
        before = state(small_space, *grey_batch)
        predictor(cells(small_space, 1)[0])
        assert state(small_space, *grey_batch) == before

    def test_the_estimate_tells_how_to_get_it_again(
        self, score: Score, small_space: NasBench201, grey_batch: Batch
    ) -> None:
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
        assert (float(estimate.provenance["std"]) > 0) == self.depends_on_weights
        once = predictor_of(score, small_space, x, y, seed=5)(architecture)
        assert "std" not in once.provenance

    def test_the_batch_is_frozen(self, score: Score, small_space: NasBench201, grey_batch: Batch) -> None:
        x, y = grey_batch[0].clone(), grey_batch[1].clone()
        predictor = predictor_of(score, small_space, x, y, seed=5)
        x.zero_()
        y.zero_()
        reference = predictor_of(score, small_space, *grey_batch, seed=5)
        architecture = cells(small_space, 1)[0]
        assert predictor(architecture) == reference(architecture)

    def test_a_cell_without_any_path_has_a_value_or_a_status(
        self, score: Score, small_space: NasBench201, grey_batch: Batch
    ) -> None:
        architecture = Architecture(dict.fromkeys(small_space.choices(), "none"))
        estimate = predictor_of(score, small_space, *grey_batch, seed=5, repeats=2)(architecture)
        assert (estimate.status == "ok") == math.isfinite(estimate.value)
