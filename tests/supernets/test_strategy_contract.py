"""What every supernet strategy has to do. A new strategy is tested as soon as it has a name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from espalier.nas.choices import Choice
from espalier.nas.data.batches import Order
from espalier.nas.errors import UserError
from espalier.nas.gates import Gate, Gates, Mixture
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Classification
from espalier.nas.training import TrainSettings
from espalier.recipes.config.registry import STRATEGIES
from espalier.recipes.config.roles import load
from espalier.supernets.strategy import Step, Strategy
from espalier.supernets.trainer import SupernetTraining, train_supernet
from toy_elastic import ToyElastic
from toy_space import ToyCell, ToySpace
from user_errors import user_error

SPACES: dict[str, Callable[[], SearchSpace]] = {
    "toy": ToySpace,
    "toy cell": ToyCell,
    "nasbench201": lambda: NasBench201((1, 8, 8), 10, channels=4, cells=1),
    "elastic, gated": lambda: ToyElastic("gate"),
    "elastic, superposed": lambda: ToyElastic("superpose"),
}
TASK = Classification(10)
EPOCHS = {"toy": 40, "toy cell": 40}
"""In which the loss falls; the larger spaces learn sooner, in `LARGE_EPOCHS`, and take longer for it."""
LARGE_EPOCHS = 20


class Digits:
    """A few batches of 8x8 digits, in an order drawn each epoch."""

    def __init__(self, generator: torch.Generator) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        self.x = torch.tensor(digits.images[:320], dtype=torch.float32)[:, None] / 8 - 1
        self.y = torch.tensor(digits.target[:320])
        self.generator = generator
        self.order: Order | None = None

    def follow(self, order: Order) -> None:
        self.order = order

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.order is None:
            drawn = torch.randperm(320, generator=self.generator)
        else:
            drawn = self.order.draw(320, 320, self.generator)
        for indices in drawn.split(64):
            yield self.x[indices], self.y[indices]


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    torch.manual_seed(0)
    return SPACES[request.param]()


@pytest.fixture(params=STRATEGIES)
def make_strategy(request: pytest.FixtureRequest) -> Callable[[SearchSpace], Strategy]:
    strategy: type[Strategy] = load(STRATEGIES, request.param, where="test")

    def make(space: SearchSpace) -> Strategy:
        if not all(isinstance(choice, tuple(strategy.supports)) for choice in space.choices().values()):
            pytest.skip(f"{strategy.name} does not open every kind of choice")
        torch.manual_seed(3)
        return strategy(space)

    return make


def run(space: SearchSpace, strategy: Strategy, epochs: int, **options: Any) -> list[dict[str, float]]:
    generator = torch.Generator().manual_seed(1)
    training = SupernetTraining(
        space,
        strategy,
        TrainSettings(epochs=epochs, lr=0.1),
        Digits(generator),
        validation=Digits(generator),
        task=TASK,
        generator=generator,
        seed=2,
    )
    return train_supernet(training, **options)


def test_its_gates_open_every_choice(space: SearchSpace, make_strategy: Any) -> None:
    strategy = make_strategy(space)

    def gates(seed: int) -> list[Gates]:
        generator = torch.Generator().manual_seed(seed)
        return [strategy.weight_gates(generator) for _ in range(5)]

    for drawn in gates(0):
        assert drawn.keys() == space.choices().keys()
        assert space(torch.zeros(2, *space.input_shape), drawn).shape == (2, 10)
    for first, second in zip(gates(0), gates(0), strict=True):
        assert all(same(first[name], second[name]) for name in first)


def test_it_opens_no_more_than_its_region(space: SearchSpace, make_strategy: Any) -> None:
    strategy = make_strategy(space)
    first, second = [name for name, choice in space.choices().items() if len(choice.options) > 2][:2]
    strategy.region = strategy.region.decide(first, 1).restrict(second, (0, 2))
    run(space, strategy, epochs=2)  # the first may be a warm-up
    generator = torch.Generator().manual_seed(0)
    for gates in [strategy.mean_gates(), *(strategy.weight_gates(generator) for _ in range(5))]:
        assert gates[first] == 1
        open_options = {gates[second]} if isinstance(gates[second], int) else set(gates[second].active)
        assert open_options <= {0, 2}
    for name, weights in strategy.preferences().items():
        assert float(weights.sum()) == pytest.approx(1)
        assert all(float(weights[index]) == 0 for index in range(len(weights)) if index not in strategy.region[name])


def test_its_state_belongs_to_one_space(make_strategy: Any) -> None:
    strategy = make_strategy(SPACES["nasbench201"]())
    with pytest.raises(UserError, match=r"^checkpoint\.\w+"):
        make_strategy(ToyCell()).load_state_dict(strategy.state_dict())


def test_what_it_learns_touches_no_weight_and_no_statistic(make_strategy: Any) -> None:
    """The step of architecture parameters leaves gradients, weights and running statistics as they are."""
    space = SPACES["nasbench201"]()
    strategy = make_strategy(space)
    x, y = next(iter(Digits(torch.Generator().manual_seed(0))))
    step = Step(
        supernet=space.train(),
        task=TASK,
        optimizer=torch.optim.SGD(space.parameters(), lr=0.1, momentum=0.9),
        train=(x, y),
        validation=lambda: (x, y),
        generator=torch.Generator().manual_seed(0),
        epoch=1,
        epochs=2,
        index=4,
        steps=5,
    )
    before = {name: tensor.clone() for name, tensor in space.state_dict().items()}
    strategy.before_step(step)
    strategy.after_step(step)
    assert all(torch.equal(tensor, before[name]) for name, tensor in space.state_dict().items())
    assert all(parameter.grad is None for parameter in space.parameters())


def same(first: Gate, second: Gate) -> bool:
    if isinstance(first, Mixture) and isinstance(second, Mixture):
        return first.active == second.active and torch.equal(first.weights, second.weights)
    return first == second


def test_the_loss_falls(space: SearchSpace, make_strategy: Any, request: pytest.FixtureRequest) -> None:
    epochs = EPOCHS.get(request.node.callspec.params["space"], LARGE_EPOCHS)
    rows = run(space, make_strategy(space), epochs=epochs)
    assert sum(row["loss"] for row in rows[-3:]) / 3 < 0.95 * math.log(10)  # better than knowing nothing


def test_resumed_it_gives_the_same_weights_to_the_bit(make_strategy: Any, tmp_path: Path) -> None:
    def fresh() -> SearchSpace:
        torch.manual_seed(0)
        return SPACES["nasbench201"]()

    whole = fresh()
    run(whole, make_strategy(whole), epochs=3)

    class Killed(Exception):
        pass

    def die_in_epoch_3(row: dict[str, float]) -> None:
        if row["epoch"] == 3:
            raise Killed

    first = fresh()
    with pytest.raises(Killed):
        run(first, make_strategy(first), epochs=3, checkpoint=tmp_path / "c.pt", on_epoch=die_in_epoch_3)
    second = fresh()
    rows = run(second, make_strategy(second), epochs=3, checkpoint=tmp_path / "c.pt")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_a_choice_it_cannot_open_is_refused_before_training(make_strategy: Any) -> None:
    class Unheard(Choice):
        pass

    space = ToyCell()
    strategy = make_strategy(space)
    space.unheard = Unheard("unheard", (1, 2))
    del space.__dict__["_choices"]
    with user_error("supernet.strategy", "unsupported", says="'unheard'"):
        run(space, strategy, epochs=1)
