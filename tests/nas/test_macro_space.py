"""NAS-Bench-Macro against its table: parameters, multiply-accumulates and classes of all 6,561 networks."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from torch import nn

from espalier.nas.cost.count import CostCounter
from espalier.nas.gates import mixture
from espalier.nas.spaces.macro import Macro
from user_errors import user_error


@pytest.fixture(scope="module")
def space() -> Macro:
    with torch.device("meta"):
        return Macro()


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[dict[str, str]]:
    with gzip.open(shared_data / "nasbench_macro_cifar10.csv.gz", "rt") as file:
        return list(csv.DictReader(file))


def test_costs_are_the_table_s(space: Macro, rows: list[dict[str, str]]) -> None:
    """In all rows: what a layer costs does not depend on the others, so differences to `00000000` add up."""
    counter = CostCounter(space)
    base = counter(space.parse("00000000"))
    more = {}
    for i in range(8):
        for digit in "012":
            cost = counter(space.parse("0" * i + digit + "0" * (7 - i)))
            more[i, digit] = (cost.params - base.params, cost.macs - base.macs)
    assert len(rows) == space.size == 6561
    for row in rows:
        extra = [more[place] for place in enumerate(row["arch"])]
        assert base.params + sum(params for params, _ in extra) == int(row["params"])
        assert base.macs + sum(macs for _, macs in extra) == int(row["flops"]) + 10  # ours count the last bias


@pytest.mark.parametrize("row", [0, 6560, 4321, 1234])
def test_costs_do_add_up(space: Macro, rows: list[dict[str, str]], row: int) -> None:
    cost = CostCounter(space)(space.parse(rows[row]["arch"]))
    assert (cost.params, cost.macs) == (int(rows[row]["params"]), int(rows[row]["flops"]) + 10)


def test_classes_are_the_table_s_different_rows(space: Macro, rows: list[dict[str, str]]) -> None:
    """3 (1 + 2) classes of a stage of two layers, 3 (1 + 2 + 4) of one of three: 9 * 21 * 21."""
    classes: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for row in rows:
        values = tuple(row[column] for column in ("acc_1", "acc_2", "acc_3", "params", "flops"))
        classes[space.isomorphism_class(space.parse(row["arch"]))].add(values)
    assert len(classes) == 9 * 21 * 21 == 3969
    assert all(len(values) == 1 for values in classes.values())
    assert len(set.union(*classes.values())) == 3969


def test_where_an_identity_stands_in_a_stage_does_not_matter(space: Macro) -> None:
    def same(a: str, b: str) -> bool:
        return space.isomorphism_class(space.parse(a)) == space.isomorphism_class(space.parse(b))

    assert same("00010000", "00001000")
    assert same("00000102", "00000120")
    assert not same("00100000", "00010000")  # the first of a stage is no identity
    assert not same("00000012", "00000021")
    assert not same("01000000", "00010000")  # another stage


@pytest.fixture
def small() -> Macro:
    torch.manual_seed(0)
    return Macro((1, 8, 8), 7, widths=(8, 8, 16, 16, 24), cells=(2, 1, 2), reductions=1)


def test_a_layer_keeps_the_shape_or_changes_it(small: Macro) -> None:
    kinds = [type(choice.candidates["identity"]) for choice in small.layers]
    assert kinds == [nn.Identity, nn.Identity, nn.Sequential, nn.Sequential, nn.Identity]
    x = torch.randn(2, 8, 8, 8)
    first = small.layers[0]
    assert first.run(0, x) is x
    small.eval()
    assert torch.equal(first.run(1, x), x + first.candidates["mb3_k3"].operation(x))
    y = torch.randn(2, 16, 8, 8)
    assert [small.layers[3].run(i, y).shape for i in range(3)] == [(2, 16, 4, 4)] * 3
    depthwise = [small.layers[3].candidates[name][3] for name in ("mb3_k3", "mb6_k5")]
    assert [(conv.kernel_size, conv.groups, conv.stride) for conv in depthwise] == [
        ((3, 3), 48, (2, 2)),
        ((5, 5), 96, (2, 2)),
    ]


def test_a_first_layer_that_keeps_the_shape_drops_out_of_its_class(small: Macro) -> None:
    assert small.isomorphism_class(small.parse("01000")) == small.isomorphism_class(small.parse("10000"))
    assert small.isomorphism_class(small.parse("00100")) != small.isomorphism_class(small.parse("01000"))


def test_one_hot_mixtures_are_paths(small: Macro) -> None:
    path = small.gates(small.parse("01202"))
    rows = {name: mixture(nn.functional.one_hot(torch.tensor(index), 3).float()) for name, index in path.items()}
    x = torch.randn(3, 1, 8, 8)
    assert torch.allclose(small(x, rows), small(x, path), atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 31, 33)])
def test_images_of_any_size(shape: tuple[int, int, int]) -> None:
    space = Macro(shape, 7, width=0.25)
    assert space(torch.randn(2, *shape), space.gates(space.parse("01201201"))).shape == (2, 7)


def test_width_narrows_every_convolution() -> None:
    with torch.device("meta"):
        half = Macro(width=0.5)
    assert (half.stem[0].out_channels, half.last[0].in_channels, half.last[0].out_channels) == (16, 128, 640)


@pytest.mark.parametrize("text", ["0000000", "000000000", "00000003", "0000000x", ""])
def test_notations_that_are_none(space: Macro, text: str) -> None:
    with user_error("table, line 3", "invalid", says=f"'{text}'"):
        space.parse(text, where="table, line 3")
