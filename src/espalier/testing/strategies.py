"""What every supernet strategy must do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from espalier.nas.data.batches import Order
from espalier.nas.gates import Gate, Gates, Mixture
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Classification
from espalier.nas.training import TrainSettings
from espalier.supernets.strategy import Step, Strategy
from espalier.supernets.trainer import SupernetTraining, train_supernet

TASK = Classification(10)


class StrategyContract:
    """The contract of a supernet strategy. A subclass overrides the fixture `strategy`."""

    @pytest.fixture
    def strategy(self) -> Callable[[SearchSpace], Strategy]:
        """The class, or anything else that makes the strategy of a space."""
        raise NotImplementedError

    @pytest.fixture
    def space(self) -> SearchSpace:
        """The space to train; override it for a strategy that does not support layer choices."""
        return small_space()

    @pytest.fixture
    def make_strategy(self, strategy: Callable[[SearchSpace], Strategy]) -> Callable[[SearchSpace], Strategy]:
        """The strategy of a space, the same each time."""

        def make(space: SearchSpace) -> Strategy:
            torch.manual_seed(3)
            return strategy(space)

        return make

    def epochs_to_learn(self, space: SearchSpace) -> int:
        """Epochs after which the loss must be below that of guessing."""
        return 20

    def test_its_gates_open_every_choice(self, space: SearchSpace, make_strategy: Any) -> None:
        strategy = make_strategy(space)

        def gates(seed: int) -> list[Gates]:
            generator = torch.Generator().manual_seed(seed)
            return [strategy.weight_gates(generator) for _ in range(5)]

        for drawn in gates(0):
            assert drawn.keys() == space.choices().keys()
            assert space(torch.zeros(2, *space.input_shape), drawn).shape == (2, 10)
        for first, second in zip(gates(0), gates(0), strict=True):
            assert all(same(first[name], second[name]) for name in first)

    def test_it_opens_no_more_than_its_region(self, space: SearchSpace, make_strategy: Any) -> None:
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
            assert all(
                float(weights[index]) == 0 for index in range(len(weights)) if index not in strategy.region[name]
            )

    def test_what_it_learns_touches_no_weight_and_no_statistic(self, make_strategy: Any) -> None:
        """The step of architecture parameters leaves gradients, weights and running statistics as they are."""
        space = small_space()
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

    def test_the_loss_falls(self, space: SearchSpace, make_strategy: Any) -> None:
        rows = run(space, make_strategy(space), epochs=self.epochs_to_learn(space))
        assert sum(row["loss"] for row in rows[-3:]) / 3 < 0.95 * math.log(10)  # better than knowing nothing

    def test_resumed_it_gives_the_same_weights_to_the_bit(self, make_strategy: Any, tmp_path: Path) -> None:
        def fresh() -> SearchSpace:
            torch.manual_seed(0)
            return small_space()

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


def small_space() -> SearchSpace:
    """NAS-Bench-201 with a single narrow cell, always with the same weights."""
    torch.manual_seed(0)
    return NasBench201((1, 8, 8), 10, channels=4, cells=1)


def run(space: SearchSpace, strategy: Strategy, epochs: int, **options: Any) -> list[dict[str, float]]:
    """Train the supernet on digits.

    Args:
        space: the supernet.
        strategy: of the space.
        epochs: of the training.
        **options: of `train_supernet`.
    """
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


def same(first: Gate, second: Gate) -> bool:
    """Whether two gates are equal."""
    if isinstance(first, Mixture) and isinstance(second, Mixture):
        return first.active == second.active and torch.equal(first.weights, second.weights)
    return first == second
