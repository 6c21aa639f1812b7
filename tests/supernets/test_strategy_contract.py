"""What every supernet strategy has to do. A new strategy is tested as soon as it has a name."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from toy_space import ToySpace

from nas.choices import Choice
from nas.errors import UserError
from nas.gates import Gates
from nas.space import SearchSpace
from nas.spaces.nasbench201 import NasBench201
from nas.task import Classification
from nas.training import TrainSettings
from recipes.components import STRATEGIES, load
from supernets.strategy import Strategy
from supernets.trainer import train_supernet

SPACES: dict[str, Callable[[], SearchSpace]] = {
    "toy": ToySpace,
    "nasbench201": lambda: NasBench201((1, 8, 8), 10, channels=4, cells=1),
}
TASK = Classification(10)


class Digits:
    """A few batches of 8x8 digits, in an order drawn each epoch."""

    def __init__(self, generator: torch.Generator) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        self.x = torch.tensor(digits.images[:320], dtype=torch.float32)[:, None] / 8 - 1
        self.y = torch.tensor(digits.target[:320])
        self.generator = generator

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in torch.randperm(320, generator=self.generator).split(64):
            yield self.x[indices], self.y[indices]


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    torch.manual_seed(0)
    return SPACES[request.param]()


@pytest.fixture(params=STRATEGIES)
def make_strategy(request: pytest.FixtureRequest) -> Callable[[SearchSpace], Strategy]:
    strategy: Callable[[SearchSpace], Strategy] = load(STRATEGIES, request.param, where="test")
    return strategy


def run(space: SearchSpace, strategy: Strategy, epochs: int, **options: Any) -> list[dict[str, float]]:
    generator = torch.Generator().manual_seed(1)
    settings = TrainSettings(epochs=epochs, lr=0.1)
    return train_supernet(
        space, strategy, settings, Digits(generator), task=TASK, generator=generator, seed=2, **options
    )


def test_its_gates_open_every_choice(space: SearchSpace, make_strategy: Any) -> None:
    strategy = make_strategy(space)

    def gates(seed: int) -> list[Gates]:
        generator = torch.Generator().manual_seed(seed)
        return [strategy.weight_gates(generator) for _ in range(5)]

    for drawn in gates(0):
        assert drawn.keys() == space.choices().keys()
        assert space(torch.zeros(2, *space.input_shape), drawn).shape == (2, 10)
    assert gates(0) == gates(0)


def test_the_loss_falls(space: SearchSpace, make_strategy: Any) -> None:
    rows = run(space, make_strategy(space), epochs=40)
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

    space = ToySpace()
    strategy = make_strategy(space)
    space.unheard = Unheard("unheard", (1, 2))
    del space.__dict__["_choices"]
    with pytest.raises(UserError, match="cannot train the Unheard 'unheard'; allowed: "):
        run(space, strategy, epochs=1)
