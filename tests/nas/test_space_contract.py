"""What every search space has to do. A new space is one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn

from espalier.nas.architecture import Architecture
from espalier.nas.cost.count import CostCounter, count
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.conv_macro import ConvMacro
from espalier.nas.spaces.darts import Darts
from espalier.nas.spaces.deployed import Deployed
from espalier.nas.spaces.macro import Macro
from espalier.nas.spaces.mobilenet import MobileNet
from espalier.nas.spaces.mobilenetv3 import MobileNetV3
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.spaces.vit import ViT
from toy_space import ToySpace
from user_errors import user_error

SMALL_VIT: dict[str, Any] = {
    "embeddings": (8, 12, 16),
    "ratios": (1.5, 2),
    "heads": (1, 2, 3),
    "depths": (1, 2, 3),
    "head_size": 4,
}
SMALL_MACRO: dict[str, Any] = {"widths": (8, 8, 16, 16, 24), "cells": (1, 2, 1)}
SMALL_MOBILENETV3: dict[str, Any] = {
    "widths": (8, 8, 8, 16, 8, 16, 16, 24, 32),
    "depths": (1, 2),
    "kernels": (3, 5),
    "expansions": (1, 2, 4),
}
SPACES: dict[str, Callable[[], SearchSpace]] = {
    "toy": ToySpace,
    "nasbench201": lambda: NasBench201((1, 8, 8), 10, channels=4, cells=1),
    "nasbench201 affine": lambda: NasBench201((3, 12, 8), 3, channels=2, cells=2, affine=True),
    "darts": lambda: Darts((1, 8, 8), 10, variant="S0", channels=2, cells=3),
    "macro": lambda: Macro((1, 8, 8), 10, widths=(8, 8, 16, 24, 32), cells=(1, 2, 1), reductions=2),
    "macro entangled": lambda: Macro((1, 8, 8), 10, reductions=1, entanglement="gate", **SMALL_MACRO),
    "macro superposed": lambda: Macro((3, 9, 7), 3, reductions=2, entanglement="superpose", **SMALL_MACRO),
    "mobilenet": lambda: MobileNet((1, 8, 8), 10, width=0.25, cells=(1, 2, 1, 1, 1, 1), reductions=2),
    "conv_macro": lambda: ConvMacro((1, 8, 8), 10, width=0.25, reductions=1, dropout=0.0),
    "conv_macro superposed": lambda: ConvMacro((3, 12, 16), 3, width=0.25, dropout=0.0, entanglement="superpose"),
    "mobilenetv3": lambda: MobileNetV3((1, 8, 8), 10, reductions=2, **SMALL_MOBILENETV3),
    "mobilenetv3 superposed": lambda: MobileNetV3((3, 9, 11), 3, entanglement="superpose", **SMALL_MOBILENETV3),
    "deployed": lambda: Deployed(ToySpace(), precision=("fp32", "int8"), sparsity=(0.0, 0.5)),
    "deployed cells": lambda: Deployed(NasBench201((1, 8, 8), 10, channels=4, cells=1), sparsity=(0.5, 0.9)),
    "vit": lambda: ViT((1, 8, 8), 10, patch=4, **SMALL_VIT),
    "vit superposed": lambda: ViT((3, 8, 12), 3, patch=4, entanglement="superpose", **SMALL_VIT),
}


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    torch.manual_seed(0)
    return SPACES[request.param]()


@pytest.fixture
def architectures(space: SearchSpace) -> list[Architecture]:
    generator = torch.Generator().manual_seed(1)
    return [space.sample(generator) for _ in range(8)]


def images(space: SearchSpace, count: int = 3) -> torch.Tensor:
    return torch.randn(count, *space.input_shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("training", [True, False])
def test_built_with_the_same_weights_it_computes_what_the_supernet_does(
    space: SearchSpace, architectures: list[Architecture], training: bool
) -> None:
    space.train(training)
    for architecture in architectures:
        network = space.build(architecture, weights="inherited")
        assert torch.equal(network(images(space)), space(images(space), space.gates(architecture)))


def test_a_built_network_is_plain_torch(space: SearchSpace, architectures: list[Architecture]) -> None:
    network = space.build(architectures[0])
    assert isinstance(network, fx.GraphModule)
    for node in network.graph.nodes:
        if node.op == "call_module":
            assert type(network.get_submodule(node.target)).__module__.startswith("torch.nn.")
    for module in network.modules():
        assert type(module).__module__.startswith(("torch.nn.", "torch.fx."))


def test_a_built_network_shares_nothing_with_the_supernet(
    space: SearchSpace, architectures: list[Architecture]
) -> None:
    before = {name: tensor.clone() for name, tensor in space.state_dict().items()}
    network = space.build(architectures[0], weights="inherited").train()
    network(images(space)).sum().backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in space.state_dict().items())
    assert all(parameter.grad is None for parameter in space.parameters())


def test_fresh_weights_come_from_the_global_generator(space: SearchSpace, architectures: list[Architecture]) -> None:
    def fresh(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(space.build(architectures[0]).parameters())

    assert torch.equal(fresh(0), fresh(0))
    assert not torch.equal(fresh(0), fresh(1))


def test_the_notation_goes_out_and_in(space: SearchSpace, architectures: list[Architecture]) -> None:
    for architecture in architectures:
        assert space.parse(space.format(architecture)) == architecture


def test_sampling_is_uniform_and_reproducible(space: SearchSpace) -> None:
    def draws(seed: int) -> list[str]:
        generator = torch.Generator().manual_seed(seed)
        return [space.sample(generator).id for _ in range(20)]

    assert draws(0) == draws(0)
    assert draws(0) != draws(1)
    generator = torch.Generator().manual_seed(3)
    samples = [space.sample(generator) for _ in range(600)]
    for name, choice in space.choices().items():
        for option in choice.options:
            share = sum(sample[name] == option for sample in samples) / len(samples)
            assert abs(share - 1 / len(choice.options)) < 0.08


def test_mutation_changes_one_choice(space: SearchSpace, architectures: list[Architecture]) -> None:
    generator = torch.Generator().manual_seed(4)
    for architecture in architectures:
        mutant = space.check(space.mutate(architecture, generator))
        assert sum(mutant[name] != architecture[name] for name in architecture) == 1


def test_cost_is_that_of_the_built_network(space: SearchSpace, architectures: list[Architecture]) -> None:
    counter = CostCounter(space)
    for architecture in architectures[:4]:
        network = space.build(architecture)
        assert counter(architecture) == count(network, space.input_shape)
        assert counter(architecture).params == sum(p.numel() for p in network.parameters())


def test_the_diagram_names_real_options(space: SearchSpace, architectures: list[Architecture]) -> None:
    edges = space.diagram(architectures[0])
    labels = {str(option) for option in architectures[0].values()}
    assert {label for _, _, label in edges if label} <= labels
    assert {"input", "output"} <= {node for edge in edges for node in edge[:2]}


def test_what_is_not_in_the_space_is_refused(space: SearchSpace, architectures: list[Architecture]) -> None:
    name = next(iter(architectures[0]))
    rest = {key: option for key, option in architectures[0].items() if key != name}
    for wrong, key, code in (
        ({**rest, name: "nonsense"}, name, "unknown"),
        (rest, name, "missing"),
        ({**rest, name: architectures[0][name], "extra": 1}, "extra", "unknown"),
    ):
        with user_error(f"architecture.{key}", code):  # type: ignore[arg-type]
            space.build(Architecture(wrong))
