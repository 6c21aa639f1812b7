"""What every supernet strategy has to do. A new strategy is tested as soon as it has a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from espalier.nas.choices import Choice
from espalier.nas.errors import UserError
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.recipes.config.registry import STRATEGIES
from espalier.recipes.config.roles import load
from espalier.supernets.strategy import Strategy
from espalier.testing.strategies import StrategyContract, run
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


class TestStrategies(StrategyContract):
    """The contract, for all strategies in all spaces whose choices they support."""

    @pytest.fixture(params=SPACES)
    def space(self, request: pytest.FixtureRequest) -> SearchSpace:
        torch.manual_seed(0)
        return SPACES[request.param]()

    @pytest.fixture(params=STRATEGIES)
    def make_strategy(self, request: pytest.FixtureRequest) -> Callable[[SearchSpace], Strategy]:
        strategy: type[Strategy] = load(STRATEGIES, request.param, where="test")

        def make(space: SearchSpace) -> Strategy:
            if not all(isinstance(choice, tuple(strategy.supports)) for choice in space.choices().values()):
                pytest.skip(f"{strategy.name} does not support every kind of choice")
            torch.manual_seed(3)
            return strategy(space)

        return make

    def epochs_to_learn(self, space: SearchSpace) -> int:
        return 40 if isinstance(space, ToySpace | ToyCell) else 20

    def test_its_state_belongs_to_one_space(self, make_strategy: Any) -> None:
        strategy = make_strategy(SPACES["nasbench201"]())
        with pytest.raises(UserError, match=r"^checkpoint\.\w+"):
            make_strategy(ToyCell()).load_state_dict(strategy.state_dict())

    def test_a_choice_it_cannot_open_is_refused_before_training(self, make_strategy: Any) -> None:
        class Unheard(Choice):
            pass

        space = ToyCell()
        strategy = make_strategy(space)
        space.unheard = Unheard("unheard", (1, 2))
        del space.__dict__["_choices"]
        with user_error("supernet.strategy", "unsupported", says="'unheard'"):
            run(space, strategy, epochs=1)
