from __future__ import annotations

from collections import Counter

import torch

from espalier.nas.architecture import Architecture
from espalier.nas.region import Region
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Classification
from espalier.nas.training import TrainSettings
from espalier.supernets.spos import SinglePathOneShot
from espalier.supernets.trainer import SupernetTraining
from toy_space import ToySpace
from user_errors import user_error


def test_paths_are_uniform_and_independent() -> None:
    strategy = SinglePathOneShot(NasBench201((1, 8, 8), channels=2, cells=1))
    generator = torch.Generator().manual_seed(0)
    draws = [strategy.weight_gates(generator) for _ in range(10_000)]
    pairs = Counter((draw["edge_1_0"], draw["edge_3_2"]) for draw in draws)
    assert len(pairs) == 25
    chi_square = sum((count - 400) ** 2 / 400 for count in pairs.values())
    assert chi_square < 51.2  # the 99.9 % point with 24 degrees of freedom


class Deep(ToySpace):
    """`none` must be followed by one block."""

    def contains(self, architecture: Architecture) -> bool:
        return (architecture["layer"], architecture["depth"]) != ("none", 2)


def test_paths_keep_the_constraints_of_the_space() -> None:
    space = Deep()
    strategy = SinglePathOneShot(space)
    generator = torch.Generator().manual_seed(0)
    draws = [space.architecture(strategy.weight_gates(generator)) for _ in range(200)]
    assert len({draw.id for draw in draws}) == 15
    assert all(space.contains(draw) for draw in draws)


def test_a_region_without_a_valid_path_is_an_error() -> None:
    strategy = SinglePathOneShot(Deep())
    strategy.region = strategy.region.decide("layer", 2).decide("depth", 1)
    with user_error("supernet.strategy", "infeasible", says="1,000"):
        strategy.weight_gates(torch.Generator())


def test_a_step_leaves_weights_off_the_path_alone() -> None:
    """Neither gradient, nor momentum, nor decay reaches an operation that was not drawn."""
    torch.manual_seed(0)
    space = NasBench201((1, 8, 8), channels=4, cells=1)
    strategy = SinglePathOneShot(space)
    strategy.region = Region(dict.fromkeys(space.choices(), (3,)))
    x, y = torch.randn(8, 1, 8, 8), torch.randint(10, (8,))
    settings = TrainSettings(epochs=1, weight_decay=0.1)
    training = SupernetTraining(
        space, strategy, settings, [(x, y)], task=Classification(10), generator=torch.Generator(), seed=0
    )
    training.step(x, y)  # momentum now exists on this path
    strategy.region = Region(dict.fromkeys(space.choices(), (2,)))
    before = {name: parameter.clone() for name, parameter in space.named_parameters()}
    training.step(x, y)
    for name, parameter in space.named_parameters():
        changed = not torch.equal(parameter, before[name])
        assert changed == ("nor_conv_3x3" not in name), name
