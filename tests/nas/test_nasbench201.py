from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest
import torch
from torch import nn

from espalier.nas.cost.count import CostCounter
from espalier.nas.errors import Code
from espalier.nas.spaces.nasbench201 import OPERATIONS, NasBench201
from user_errors import user_error

ALL_NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
ALL_3X3 = ALL_NONE.replace("none", "nor_conv_3x3")


@pytest.fixture(scope="module")
def space() -> NasBench201:
    return NasBench201()


@pytest.fixture(scope="module")
def table(shared_data: Path) -> list[dict[str, str]]:
    with gzip.open(shared_data / "nasbench201_cifar10.csv.gz", "rt") as file:
        return list(csv.DictReader(file))


def test_the_supernet_has_the_reference_s_parameters(space: NasBench201) -> None:
    assert sum(parameter.numel() for parameter in space.parameters()) == 1_686_106
    assert space.size == 15_625
    assert space.choices()["edge_3_2"].options == OPERATIONS


@pytest.mark.parametrize(
    ("cell", "params"),
    [
        ("|avg_pool_3x3~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_1x1~2|", 129_306),
        ("|nor_conv_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|", 587_386),
        (ALL_NONE, 73_306),
        (ALL_3X3, 1_531_546),
    ],
)
def test_exact_costs(space: NasBench201, cell: str, params: int) -> None:
    cost = CostCounter(space)(space.parse(cell))
    n3, n1 = cell.count("nor_conv_3x3"), cell.count("nor_conv_1x1")
    assert cost.params == params == 73_306 + 243_040 * n3 + 28_000 * n1
    assert cost.macs == 7_783_050 + 35_389_440 * n3 + 3_932_160 * n1


def test_all_cells_of_the_benchmark(space: NasBench201, table: list[dict[str, str]]) -> None:
    """Strings in and out, and the 6,466 isomorphism classes, exactly as the table has them."""
    ours_of_theirs: dict[str, set[str]] = {}
    ids = set()
    for row in table:
        architecture = space.parse(row["arch"])
        assert space.format(architecture) == row["arch"]
        ids.add(architecture.id)
        ours_of_theirs.setdefault(row["iso_rep"], set()).add(space.isomorphism_class(architecture))
    assert len(ids) == 15_625
    assert all(len(ours) == 1 for ours in ours_of_theirs.values())
    assert len(set.union(*ours_of_theirs.values())) == len(ours_of_theirs) == 6_466


def test_costs_of_the_benchmark(space: NasBench201, table: list[dict[str, str]]) -> None:
    counter = CostCounter(space)
    for row in table[::1000]:
        cost = counter(space.parse(row["arch"]))
        assert (cost.params, cost.macs) == (int(row["params_c10"]), int(row["macs_c10"]))


def test_isomorphic_cells_compute_the_same_function() -> None:
    """Node 1 is a copy of the input in both cells, so the two convolutions change places."""
    space = NasBench201((1, 8, 8), channels=4, cells=1).eval()
    a = space.parse("|skip_connect~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|")
    b = space.parse("|skip_connect~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|")
    assert space.isomorphism_class(a) == space.isomorphism_class(b)
    with torch.no_grad():
        for cell in [space.body[0], space.body[2], space.body[4]]:
            source = cell.edges["edge_2_0"].candidates["nor_conv_3x3"]
            cell.edges["edge_2_1"].candidates["nor_conv_3x3"].load_state_dict(source.state_dict())
    x = torch.randn(2, 1, 8, 8)
    assert torch.allclose(space(x, space.gates(a)), space(x, space.gates(b)), atol=1e-6)


def test_built_networks_have_affine_batch_norms(space: NasBench201) -> None:
    network = space.build(space.parse(ALL_3X3), weights="inherited")
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.affine for norm in norms)
    assert len(norms) == 2 * 2 + 2 + 15 * 6  # residual blocks, stem and head, six edges in fifteen cells


@pytest.mark.parametrize(
    ("text", "code", "nearest"),
    [
        ("", "invalid", None),
        ("|none~0|", "invalid", None),
        (ALL_NONE.replace("none~2", "none~1"), "invalid", None),
        (ALL_NONE[:-1], "invalid", None),
        (ALL_NONE.replace("none~2", "nor_conv_3x4~2"), "unknown", "nor_conv_3x3"),
        ("junk" + ALL_NONE, "invalid", None),
    ],
)
def test_a_string_that_is_no_cell_is_refused(space: NasBench201, text: str, code: Code, nearest: str | None) -> None:
    with user_error("architecture", code, nearest=nearest):
        space.parse(text)


def test_images_that_cannot_be_halved_twice_are_refused() -> None:
    with user_error("data.size", "unsupported", says="30x32"):
        NasBench201((3, 30, 32))
