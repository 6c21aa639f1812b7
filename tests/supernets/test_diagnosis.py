"""Diagnosis of a supernet: its numbers by hand, against torch's Hessian, and for every strategy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from espalier.nas.gates import mixture
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Batch, Classification
from espalier.nas.training import Diverged, TrainSettings
from espalier.recipes.config.registry import STRATEGIES
from espalier.recipes.config.roles import load
from espalier.supernets.batch_norm import frozen_statistics
from espalier.supernets.curvature import dominant_eigenvalue, eigenvalue_growth, largest_growth, sharpness
from espalier.supernets.darts import DARTS, FixedAlpha
from espalier.supernets.diagnosis import Diagnosis, diagnose, parameter_free, verdict
from espalier.supernets.drnas import DrNAS
from espalier.supernets.early_stop import EarlyStop, StopSettings
from espalier.supernets.entropy import mean_entropy
from espalier.supernets.gradient_strategy import GradientStrategy
from espalier.supernets.spos import SinglePathOneShot
from espalier.supernets.trainer import SupernetTraining, train_supernet
from toy_space import ToyCell, ToySpace
from user_errors import user_error

NONE, SKIP, CONV = range(3)
"""Options of the edges of ToyCell."""
HEALTHY = Diagnosis(
    learns=True,
    choices=6,
    parameter_free=2,
    by_chance=3.6,
    entropy=0.62,
    eigenvalue=0.41,
    growth=1.1,
    growth_epoch=12,
    training_loss=0.5,
    validation_loss=0.75,
    training_accuracy=0.9,
    validation_accuracy=0.8,
)


def batches(count: int = 2, size: int = 16, seed: int = 0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 1, 8, 8, generator=generator), torch.randint(10, (size,), generator=generator))
        for _ in range(count)
    ]


def toy(space_class: type[SearchSpace] = ToyCell) -> SearchSpace:
    torch.manual_seed(0)
    return space_class()


def prefer(strategy: GradientStrategy, options: Sequence[int], alpha: float = 3.0) -> GradientStrategy:
    """The strategy with one option of each choice ahead of the others."""
    with torch.no_grad():
        for parameter, option in zip(strategy.alphas.parameters(), options, strict=True):
            parameter.zero_()[option] = alpha
    return strategy


@pytest.mark.parametrize(
    ("spectrum", "dominant"),
    [
        ((5.0, 3.0, 1.0, 0.0), 5.0),
        ((-5.0, 3.0, 1.0, 0.5), -5.0),
        ((4.0, -3.0, 1.0, 0.0), 4.0),
        ((0.0, 0.0, 0.0, 0.0), 0.0),
    ],
)
def test_eigenvalue_of_a_quadratic(spectrum: tuple[float, ...], dominant: float) -> None:
    """H of p'Ap / 2 is A."""
    q, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    a = q @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ q.T
    parts = [torch.ones(3, dtype=torch.float64).requires_grad_(), torch.ones(1, dtype=torch.float64).requires_grad_()]
    p = torch.cat(parts)
    assert dominant_eigenvalue(p @ a @ p / 2, parts, seed=0) == pytest.approx(dominant, rel=0.02, abs=1e-9)


def test_opposite_eigenvalues_of_one_magnitude_settle() -> None:
    """x y has the eigenvalues 1 and -1: v goes on turning, ||Hv|| stands still."""
    p = torch.tensor([1.0, 2.0]).requires_grad_()
    assert abs(dominant_eigenvalue(p[0] * p[1], [p], seed=0)) == pytest.approx(1)


def test_what_the_loss_does_not_bend_in_counts_nothing() -> None:
    p, unused = torch.ones(2).requires_grad_(), torch.ones(2).requires_grad_()
    assert dominant_eigenvalue((3 * p).sum(), [p, unused], seed=0) == 0
    assert dominant_eigenvalue((3 * p**2).sum(), [p, unused], seed=0) == pytest.approx(6)


def test_a_curvature_that_is_not_finite_is_refused() -> None:
    p = torch.zeros(2).requires_grad_()
    with pytest.raises(Diverged, match="curvature"):
        dominant_eigenvalue(p.sqrt().sum(), [p], seed=0)


@pytest.mark.parametrize(
    "options", [{"gate": "softmax"}, {"gate": "sigmoid"}, None], ids=["softmax", "sigmoid", "drnas"]
)
def test_eigenvalue_against_the_whole_hessian(options: dict[str, Any] | None) -> None:
    """The Hessian of the cross-entropy at the mean gates of each method, entry by entry, by torch."""
    space, (x, y) = toy().train(), batches(1, size=32)[0]
    strategy: GradientStrategy = DrNAS(space) if options is None else DARTS(space, **options)
    prefer(strategy, (CONV, SKIP, NONE), alpha=1.0)
    alphas = strategy.alphas.parameters()

    def loss(*values: Tensor) -> Tensor:
        weights = dict(zip(strategy.alphas.values, map(strategy.weigh, values), strict=True))
        gates = {**strategy.mean_gates(), **{name: mixture(weight) for name, weight in weights.items()}}
        return F.cross_entropy(space(x, gates), y)

    with frozen_statistics(space):
        blocks = torch.autograd.functional.hessian(loss, tuple(alpha.detach() for alpha in alphas))
    eigenvalues = torch.linalg.eigvalsh(torch.cat([torch.cat(row, dim=1) for row in blocks]).double())
    expected = float(eigenvalues[eigenvalues.abs().argmax()])
    assert abs(expected) > 1e-3
    assert sharpness(space, strategy, (x, y), seed=0) == pytest.approx(expected, rel=0.02)


def test_only_undecided_alphas_are_looked_at() -> None:
    space, batch = toy(), batches(1)[0]
    strategy = DARTS(space)
    whole = sharpness(space, strategy, batch, seed=0)
    strategy.region = strategy.region.decide("edge_0", CONV).decide("edge_1", CONV)
    part = sharpness(space, strategy, batch, seed=0)
    assert whole is not None
    assert part is not None
    assert part != whole
    strategy.region = strategy.region.decide("edge_2", SKIP)
    assert sharpness(space, strategy, batch, seed=0) is None


@pytest.mark.parametrize("strategy_class", [SinglePathOneShot, FixedAlpha])
def test_without_learnt_alphas_there_is_no_eigenvalue(strategy_class: Any) -> None:
    space = toy()
    assert sharpness(space, strategy_class(space), batches(1)[0], seed=0) is None


@pytest.mark.parametrize(
    ("eigenvalues", "growth"),
    [
        ([1.0] * 9, None),
        ([1.0] * 5 + [2.0] * 5, 2.0),
        ([9.0] + [1.0] * 5 + [1.0, 1.0, 1.0, 1.0, 3.5], 1.5),
        ([-1.0] * 5 + [2.0] * 5, None),
        ([1.0] * 5 + [-2.0] * 5, None),
    ],
)
def test_growth_of_the_smoothed_eigenvalue(eigenvalues: list[float], growth: float | None) -> None:
    """mean(i-4 .. i) / mean(i-9 .. i-5)."""
    rows = [{"loss": 1.0}, *({"loss": 1.0, "eigenvalue": value} for value in eigenvalues)]
    assert eigenvalue_growth(rows) == growth


def test_the_largest_growth_is_remembered() -> None:
    rows = [{"eigenvalue": value} for value in [1.0] * 5 + [2.0] * 5 + [2.0] * 5]
    assert largest_growth(rows) == (2.0, 10)
    assert largest_growth(rows[:9]) is None


def test_entropy_by_hand() -> None:
    space = toy()
    p = {name: torch.tensor([0.0, 0.9, 0.1]) for name in ("edge_0", "edge_1")} | {"edge_2": torch.full((3,), 1 / 3)}
    region = Region.whole(space).restrict("edge_0", (1, 2)).decide("edge_1", 1)
    binary = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / math.log(2)
    assert mean_entropy(p, region) == pytest.approx((binary + 1) / 2)
    assert mean_entropy(p, region.decide("edge_0", 1).decide("edge_2", 0)) is None
    assert mean_entropy({}, region) is None


def test_parameter_free_operations_are_counted() -> None:
    """Of the options none, skip, conv two of three have no parameters; a dropped edge cannot prefer `none`."""
    space = toy()
    strategy = prefer(DARTS(space), (NONE, SKIP, CONV))
    with torch.no_grad():
        strategy.alphas.values["edge_0"][CONV] = 1.0  # the best but none
    counts = parameter_free(space, strategy)
    assert (counts.choices, counts.preferred, counts.by_chance) == (3, 1, pytest.approx(2))
    assert counts.share == pytest.approx(1 / 3)


def test_choices_without_a_choice_between_the_kinds_do_not_count() -> None:
    space = toy()
    strategy = prefer(DARTS(space), (NONE, SKIP, CONV))
    strategy.region = strategy.region.restrict("edge_0", (NONE, SKIP)).decide("edge_1", SKIP)
    counts = parameter_free(space, strategy)
    assert (counts.choices, counts.preferred, counts.by_chance) == (1, 0, pytest.approx(2 / 3))
    strategy.region = strategy.region.decide("edge_2", CONV)
    assert parameter_free(space, strategy).share == 0


@pytest.mark.parametrize("strategy_class", [SinglePathOneShot, FixedAlpha])
def test_where_nothing_is_learnt_uniform_gates_are_expected(strategy_class: Any) -> None:
    """NAS-Bench-201: none, skip and pooling are 3 of 5 operations on each of 6 edges."""
    space = NasBench201((1, 8, 8), 10, channels=4, cells=1)
    counts = parameter_free(space, strategy_class(space))
    assert (counts.choices, counts.preferred, counts.by_chance) == (6, pytest.approx(3.6), pytest.approx(3.6))


@pytest.mark.parametrize("space_class", [ToyCell, ToySpace])
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_can_be_diagnosed(name: str, space_class: Any) -> None:
    """And nothing of the supernet, its strategy or torch's random state is changed by it."""
    space, strategy_class = toy(space_class).eval(), load(STRATEGIES, name, where="test")
    if any(type(choice) not in strategy_class.supports for choice in space.choices().values()):
        pytest.skip(f"{name} does not open every kind of choice")
    strategy = strategy_class(space)
    before = {key: tensor.clone() for key, tensor in space.state_dict().items()}
    random = torch.get_rng_state()
    found = diagnose(space, strategy, train=batches(3), validation=batches(2, seed=1), rows=[], seed=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[key]) for key, tensor in space.state_dict().items())
    assert all(parameter.grad is None for parameter in space.parameters())
    assert not space.training
    assert found == diagnose(space, strategy, train=batches(3), validation=batches(2, seed=1), rows=[], seed=0)
    assert (found.eigenvalue is None) == (found.entropy is None) == (not strategy.learns)
    record = found.to_record()
    assert record["verdict"] == verdict(found)
    assert record["gap"] == pytest.approx(record["validation_loss"] - record["training_loss"])


@pytest.mark.parametrize("strategy_class", [SinglePathOneShot, DARTS])
def test_the_gap_of_images_to_themselves_is_zero(strategy_class: Any) -> None:
    """Both kinds of images are judged under the same gates."""
    space, same = toy(), batches(4)
    assert diagnose(space, strategy_class(space), train=same, validation=same, rows=[], seed=0).gap == 0


def test_no_images_are_refused() -> None:
    space = toy()
    with pytest.raises(ValueError, match="no images"):
        diagnose(space, SinglePathOneShot(space), train=[], validation=batches(1), rows=[], seed=0)


@pytest.mark.parametrize(
    ("change", "begins", "contains"),
    [
        ({}, "Healthy", "2 of 6 choices prefer an operation without parameters, indifferent gates would in 3.6, and"),
        ({"entropy": None}, "Healthy", "would in 3.6."),
        ({"choices": 0, "parameter_free": 0, "by_chance": 0}, "Healthy", "no choice has operations of both kinds"),
        ({"entropy": 0.995}, "Undecided", "(entropy 0.995 of 1)"),
        # P(X >= 6) = 0.6^6 = 0.047 and P(X >= 5) = 0.233 of X ~ Binomial(6, 0.6)
        ({"parameter_free": 6}, "Collapsing", "6 of 6 choices prefer an operation without parameters"),
        ({"parameter_free": 5}, "Leaning", "5 of 6"),
        ({"parameter_free": 4}, "Healthy", "4 of 6"),
        ({"parameter_free": 6, "growth": 2.3}, "Collapsing", "(eigenvalue 0.41, ×2.3 in the 5 epochs to epoch 12)"),
        ({"growth": 2.3}, "Sharpening", "(eigenvalue 0.41, ×2.3 in the 5 epochs to epoch 12)"),
        ({"growth": 1.33}, "Healthy", "2 of 6"),
        (
            {"learns": False, "entropy": None},
            "Nothing to collapse",
            "0.75 nats on validation images and 0.50 on training",
        ),
    ],
)
def test_verdicts(change: dict[str, Any], begins: str, contains: str) -> None:
    sentence = verdict(HEALTHY.model_copy(update=change))
    assert sentence.startswith(f"{begins}: ")
    assert contains in sentence
    assert sentence.endswith(".")


def stop(space: SearchSpace, **settings: float | None) -> EarlyStop:
    torch.manual_seed(0)
    return EarlyStop(StopSettings(**settings), space, DARTS(space), batches(1)[0], seed=0)


def test_a_stop_measures_what_it_is_asked_for() -> None:
    space = toy()
    assert stop(space).measure().keys() == {"eigenvalue"}
    assert stop(space, parameter_free_share=0.8).measure().keys() == {"eigenvalue", "parameter_free_share"}
    assert stop(space, eigenvalue_growth=None, parameter_free_share=0.8).measure().keys() == {"parameter_free_share"}
    assert stop(space).measure() == stop(toy()).measure()


@pytest.mark.parametrize(
    ("eigenvalues", "stops"), [([1.0] * 5 + [1.3] * 5, False), ([1.0] * 5 + [1.4] * 5, True), ([2.0] * 8, False)]
)
def test_it_stops_by_growth(eigenvalues: list[float], stops: bool) -> None:
    """lambda(i) / lambda(i - 5) > 1 / 0.75."""
    reason = stop(toy()).reason([{"eigenvalue": value} for value in eigenvalues])
    assert (reason is not None) == stops
    if reason:
        assert reason.startswith("after epoch 10 the dominant eigenvalue in alpha had grown ×1.40 in 5 epochs")


@pytest.mark.parametrize(
    ("shares", "stops"), [([1.0] * 4, False), ([0.0] + [0.8] * 5, True), ([0.7, 0.7, 0.7, 0.8, 1.0], False)]
)
def test_it_stops_by_the_share(shares: list[float], stops: bool) -> None:
    by_share = stop(toy(), eigenvalue_growth=None, parameter_free_share=0.8)
    reason = by_share.reason([{"parameter_free_share": share} for share in shares])
    assert (reason is not None) == stops
    if reason:
        assert "a share of 0.80 of the choices" in reason


def test_a_stop_without_a_cause_is_refused() -> None:
    with pytest.raises(ValidationError, match="names nothing to stop by"):
        StopSettings(eigenvalue_growth=None)
    space = toy()
    with user_error("supernet.stop", "unsupported", says="spos"):
        EarlyStop(StopSettings(), space, SinglePathOneShot(space), batches(1)[0], seed=0)


def test_what_has_stopped_stays_so_when_resumed(tmp_path: Path) -> None:
    class Source:
        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[Batch]:
            return iter(batches(2))

    def train() -> list[dict[str, float]]:
        space = toy()
        strategy = prefer(DARTS(space, alpha_warmup=8), (SKIP, SKIP, SKIP))
        training = SupernetTraining(
            space,
            strategy,
            TrainSettings(epochs=9, lr=0.01),
            Source(),
            validation=Source(),
            task=Classification(10),
            generator=torch.Generator(),
            seed=0,
            stop=EarlyStop(
                StopSettings(eigenvalue_growth=None, parameter_free_share=1.0), space, strategy, batches(1)[0], seed=0
            ),
        )
        return train_supernet(training, checkpoint=tmp_path / "supernet.pt")

    rows = train()
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert all(row["parameter_free_share"] == 1 for row in rows)
    assert train() == rows
