"""A space with precision and sparsity beside another's choices."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from espalier.nas.architecture import Architecture
from espalier.nas.choices import ValueChoice
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.deployed import Deployed
from espalier.nas.spaces.nasbench201 import NasBench201
from toy_space import ToySpace
from user_errors import user_error

CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"


@pytest.fixture
def space() -> Deployed:
    torch.manual_seed(0)
    cells = NasBench201((1, 8, 8), 10, channels=4, cells=1)
    return Deployed(cells, precision=("fp32", "int8"), sparsity=(0, 0.5, 0.9))


def test_every_network_comes_in_every_form(space: Deployed) -> None:
    assert space.size == 5**6 * 2 * 3
    assert list(space.choices())[-2:] == ["precision", "sparsity"]
    drawn = [space.sample(torch.Generator().manual_seed(seed)) for seed in range(60)]
    assert {(a["precision"], a["sparsity"]) for a in drawn} == {(p, s) for p in ("fp32", "int8") for s in (0, 0.5, 0.9)}


def test_the_notation_says_all_and_defaults_are_the_first(space: Deployed) -> None:
    architecture = space.parse(f"{CELL} in int8 with sparsity 0.5")
    assert (architecture["precision"], architecture["sparsity"]) == ("int8", 0.5)
    assert space.parse(space.format(architecture)) == architecture
    plain = space.parse(CELL)
    assert (plain["precision"], plain["sparsity"]) == ("fp32", 0)
    assert space.network(plain) == space.network(architecture) == space.network_space.parse(CELL)
    with user_error("architecture.sparsity", "unknown", says="0.7"):
        space.parse(f"{CELL} in int8 with sparsity 0.7")


def test_ids_and_classes_differ_by_form_and_networks_do_not(space: Deployed) -> None:
    one, other = (space.parse(f"{CELL} in {precision} with sparsity 0.5") for precision in ("fp32", "int8"))
    assert one.id != other.id
    assert space.isomorphism_class(one) != space.isomorphism_class(other)
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    space.eval()
    networks = [space.build(architecture, weights="inherited") for architecture in (one, other)]
    torch.testing.assert_close(networks[0](x), networks[1](x), rtol=0, atol=0)
    torch.testing.assert_close(networks[0](x), space(x, space.gates(one)))
    assert space.diagram(one) == space.network_space.diagram(space.network(one))


def test_isomorphic_networks_in_one_form_are_one(space: Deployed) -> None:
    # Two cells that compute the same: the second's edge from node 1 to 2 leads nowhere.
    cells = (
        "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
        "|none~0|+|none~0|skip_connect~1|+|none~0|none~1|none~2|",
    )
    first, second = (space.parse(f"{cell} in int8 with sparsity 0.9") for cell in cells)
    assert space.isomorphism_class(first) == space.isomorphism_class(second)


class Evens(ToySpace):
    """Takes no architecture of depth 2 that lets nothing through."""

    def contains(self, architecture: Architecture) -> bool:
        return not (architecture["depth"] == 2 and architecture["layer"] == "none")


def test_what_the_space_demands_holds_for_mutants() -> None:
    space = Deployed(Evens(), precision=("fp32", "int8"))
    generator = torch.Generator().manual_seed(0)
    architecture = space.parse('{"depth": 1, "inputs": [0, 1], "layer": "none"}')
    for _ in range(40):
        architecture = space.mutate(architecture, generator)
        assert space.contains(architecture)


def test_a_choice_of_the_same_name() -> None:
    class Own(SearchSpace):
        def __init__(self) -> None:
            super().__init__()
            self.choice = ValueChoice("precision", (8, 16))
            self.layer = nn.Identity()

    with pytest.raises(ValueError, match="of its own"):
        Deployed(Own())
