from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.nas.architecture import Architecture
from espalier.nas.cost.count import CostCounter
from espalier.nas.cost.files import read_cost_table
from espalier.nas.cost.macs import macs_table
from espalier.nas.cost.table import CostTable, cost_table
from espalier.nas.errors import Code
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.darts import Darts
from espalier.nas.spaces.mobilenet import OPERATIONS, MobileNet
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.spaces.pixel1 import block_key, conv_key, pixel1_table
from toy_space import ToyCell, ToySpace
from user_errors import user_error

SPACES: dict[str, Callable[[], SearchSpace]] = {
    "nasbench201": lambda: NasBench201((1, 8, 8), 10, channels=2, cells=2),
    "darts": lambda: Darts((1, 8, 8), 10, variant="S3", channels=2, cells=3),
    "mobilenet": lambda: MobileNet((1, 8, 8), 10, widths=(8,) * 9, cells=(1, 1, 2, 1, 1, 1), reductions=1),
}


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    with torch.device("meta"):
        return SPACES[request.param]()


def toy_table(**changes: Any) -> CostTable:
    costs = {f"edge_{i}": {"none": 0.0, "skip": 1.0 + i, "conv": 10.0 * (1 + i)} for i in range(3)}
    given: dict[str, Any] = {"unit": "ms", "fixed": 5.0, "costs": costs, "provenance": {"device": "a"}, **changes}
    return cost_table(ToyCell(), where="costs.json", **given)


def test_macs_are_those_of_the_whole_network(space: SearchSpace) -> None:
    """The sum over the operators of the kept edges, and the fixed rest."""
    table, counter = macs_table(space), CostCounter(space)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        architecture = space.sample(generator)
        assert table.cost(architecture) == counter(architecture).macs


def test_a_choice_of_values_has_no_table() -> None:
    with user_error("space", "unsupported", says="'depth'"):
        macs_table(ToySpace())


def test_cost_counts_kept_edges_only() -> None:
    options = {"edge_0": "conv", "edge_1": "skip", "edge_2": "conv"}
    assert toy_table().cost(Architecture({**options, "node": (0, 1)})) == 5 + 10 + 2
    assert toy_table().cost(Architecture({**options, "node": (1, 2)})) == 5 + 2 + 30


def test_expected_cost_and_its_gradient() -> None:
    """E = fixed + sum_i (k / m) sum_j p_ij F_ij; dE/dalpha_ij = p_ij (F_ij - sum_k p_ik F_ik), here times 2 / 3."""
    table = toy_table()
    alphas = {f"edge_{i}": torch.randn(3, dtype=torch.float64).requires_grad_() for i in range(3)}
    expected = table.expected({name: alpha.softmax(0) for name, alpha in alphas.items()})
    expected.backward()
    total = 5.0
    for name, alpha in alphas.items():
        p = alpha.detach().softmax(0)
        costs = torch.tensor(list(table.costs[name].values()), dtype=torch.float64)
        total += float(2 / 3 * (p @ costs))
        torch.testing.assert_close(alpha.grad, 2 / 3 * p * (costs - p @ costs))
    assert float(expected.detach()) == pytest.approx(total)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.floats(0, 100), min_size=3, max_size=3), min_size=3, max_size=3), st.integers(0, 2**31))
def test_the_expectation_is_the_mean_over_all(rows: list[list[float]], seed: int) -> None:
    space = ToyCell()
    costs = {f"edge_{i}": dict(zip(("none", "skip", "conv"), row, strict=True)) for i, row in enumerate(rows)}
    table = toy_table(costs=costs)
    uniform = {name: torch.full((len(c.options),), 1 / len(c.options)).double() for name, c in space.choices().items()}
    region = Region.whole(space)
    every = [
        table.cost(space.architecture({"edge_0": a, "edge_1": b, "edge_2": c, "node": n}))
        for a in range(3)
        for b in range(3)
        for c in range(3)
        for n in range(3)
    ]
    assert float(table.expected(uniform)) == pytest.approx(sum(every) / len(every))
    assert table.cheapest(region) == pytest.approx(min(every))
    assert table.most_expensive(region) == pytest.approx(max(every))


def test_bounds_of_a_region() -> None:
    region = Region.whole(ToyCell()).decide("edge_2", 2).restrict("node", (1, 2)).restrict("edge_0", (1, 2))
    assert toy_table().cheapest(region) == 5 + 30
    assert toy_table().most_expensive(region) == 5 + 30 + 20
    assert toy_table().cheapest(region.decide("node", 1)) == 5 + 30 + 1


def test_json_goes_out_and_in(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    toy_table().write(path)
    assert read_cost_table(path, ToyCell()) == toy_table()


def rename(value: dict[str, Any], old: str, new: str) -> None:
    value["choices"] = {new if name == old else name: row for name, row in value["choices"].items()}


@pytest.mark.parametrize(
    ("damage", "where", "code", "nearest"),
    [
        (lambda v: v.update(unit="msec"), "unit", "unknown", "ms"),
        (lambda v: v["choices"].pop("edge_1"), "choices.edge_1", "missing", None),
        (lambda v: rename(v, "edge_1", "egde_1"), "choices.egde_1", "unknown", "edge_1"),
        (lambda v: v["choices"]["edge_2"].pop("conv"), "edge_2.conv", "missing", None),
        (lambda v: v["choices"]["edge_2"].update(convv=1), "edge_2.convv", "unknown", "conv"),
        (lambda v: v["choices"]["edge_0"].update(skip=float("nan")), "edge_0.skip", "out_of_range", None),
        (lambda v: v["choices"]["edge_0"].update(skip=-1), "edge_0.skip", "out_of_range", None),
        (lambda v: v["choices"]["edge_0"].update(skip="1"), "edge_0.skip", "out_of_range", None),
        (lambda v: v.update(fixed=None), "fixed", "out_of_range", None),
        (lambda v: v.pop("provenance"), "provenance", "missing", None),
        (lambda v: v.update(choices=[]), "choices", "invalid", None),
        (lambda v: v["choices"].update(edge_0=3), "edge_0", "invalid", None),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    damage: Callable[[dict[str, Any]], object], where: str, code: Code, nearest: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "costs.json"
    toy_table().write(path)
    value = json.loads(path.read_text())
    damage(value)
    path.write_text(json.dumps(value))
    with user_error(f"{path}: {where}", code, nearest=nearest):
        read_cost_table(path, ToyCell())


# The Pixel 1


@pytest.fixture(scope="module")
def mobile() -> MobileNet:
    with torch.device("meta"):
        return MobileNet()


@pytest.fixture(scope="module")
def lut(shared_data: Path) -> Path:
    return shared_data / "pixel1_proxyless_lut.csv.gz"


@pytest.fixture(scope="module")
def pixel1(mobile: MobileNet, lut: Path) -> CostTable:
    return pixel1_table(lut, mobile)


STAGES = ((56, 24), (28, 40), (14, 80), (14, 96), (7, 192), (7, 320))
"""Height and channels of the outputs of the six stages at 224 pixels; of four blocks each, but for the last."""


def rows_of(lut: Path) -> dict[str, float]:
    with gzip.open(lut, "rt") as file:
        return {row["op"]: float(row["mean_ms"]) for row in csv.DictReader(file)}


def block_keys(kernel: int, expand: int) -> list[str]:
    """The 21 searched blocks' entries with one option everywhere, written out from the geometry of the space."""
    keys = []
    size, channels = 112, 16
    for new_size, new_channels in STAGES:
        for _ in range(1 if new_channels == 320 else 4):
            skip = int((size, channels) == (new_size, new_channels))
            shapes = f"input:{size}x{size}x{channels}-output:{new_size}x{new_size}x{new_channels}"
            tail = f"expand:{expand}-kernel:{kernel}-stride:{size // new_size}-idskip:{skip}"
            keys.append(f"expanded_conv-{shapes}-{tail}")
            size, channels = new_size, new_channels
    return keys


def fixed_ms(rows: dict[str, float]) -> float:
    first = "expanded_conv-input:112x112x32-output:112x112x16-expand:1-kernel:3-stride:1-idskip:0"
    return rows[first] + sum(value for key, value in rows.items() if not key.startswith("expanded_conv"))


@pytest.mark.parametrize("option", OPERATIONS)
def test_pixel_1_with_one_option_everywhere(mobile: MobileNet, pixel1: CostTable, lut: Path, option: str) -> None:
    rows = rows_of(lut)
    expected = fixed_ms(rows) + sum(rows[key] for key in block_keys(*OPERATIONS[option]))
    assert pixel1.cost(Architecture(dict.fromkeys(mobile.choices(), option))) == pytest.approx(expected, abs=1e-6)


def test_pixel_1_bounds_and_expectation(mobile: MobileNet, pixel1: CostTable, lut: Path) -> None:
    """Every zero taken; k7e6 everywhere; p = 1 / 6, or 1 / 7 where a block can be skipped."""
    rows = rows_of(lut)
    every = [[rows[block_keys(*o)[i]] for o in OPERATIONS.values()] for i in range(21)]
    skippable = ["idskip:1" in key for key in block_keys(3, 3)]
    region = Region.whole(mobile)
    uniform = {name: torch.full((len(o),), 1 / len(o), dtype=torch.float64) for name, o in region.items()}
    expected = fixed_ms(rows) + sum(sum(c) / (7 if skip else 6) for c, skip in zip(every, skippable, strict=True))
    cheapest = fixed_ms(rows) + sum(min(c) for c, skip in zip(every, skippable, strict=True) if not skip)
    assert float(pixel1.expected(uniform)) == pytest.approx(expected, abs=1e-6)
    assert pixel1.cheapest(region) == pytest.approx(cheapest, abs=1e-6)
    assert pixel1.most_expensive(region) == pytest.approx(fixed_ms(rows) + sum(max(c) for c in every), abs=1e-6)
    assert sum(len(row) for row in pixel1.costs.values()) == 141
    assert sum("zero" in row for row in pixel1.costs.values()) == 15


def test_every_key_of_the_file_can_be_built(lut: Path) -> None:
    rows = rows_of(lut)
    assert len(rows) == 72
    for key in rows:
        name, first, second, *rest = re.split(r"-(?:input|output|expand|kernel|stride|idskip):", key)
        before, *after = [tuple(map(int, shape.split("x"))) for shape in (first, second)]
        channels_first = (before[2], *before[:2])
        if rest:
            h, w, c = after[0]
            built = block_key(channels_first, (c, h, w), expand=int(rest[0]), kernel=int(rest[1]))
        else:
            out = after[0]
            built = conv_key(name, channels_first, out[0] if len(out) == 1 else (out[2], *out[:2]))
        assert built == key


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"input_shape": (3, 192, 192)}, "expanded_conv-input:96x96x16-output:48x48x24-expand:3-kernel:3-stride:2"),
        ({"width": 0.5}, "expanded_conv-input:112x112x8-output:56x56x16"),
        ({"num_classes": 10}, "Logits-input:7x7x1280-output:10"),
    ],
)
def test_pixel_1_knows_one_geometry_only(lut: Path, changes: dict[str, Any], key: str) -> None:
    with torch.device("meta"):
        space = MobileNet(**changes)
    with user_error(str(lut), "unknown", says=key):
        pixel1_table(lut, space)


def test_a_row_without_a_number_is_named(mobile: MobileNet, lut: Path, tmp_path: Path) -> None:
    path = tmp_path / "lut.csv"
    path.write_text(gzip.decompress(lut.read_bytes()).decode().replace("4.397037934668071", "nan"))
    with user_error("lut.csv", "invalid", says="Conv-input:224x224x3-output:112x112x32"):
        pixel1_table(path, mobile)
