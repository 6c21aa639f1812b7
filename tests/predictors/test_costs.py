"""Parameters and multiply-accumulates as predictors, against the benchmark's own numbers."""

from __future__ import annotations

import pytest

from espalier.nas.architecture import Architecture
from espalier.nas.cost.count import CostCounter
from espalier.nas.errors import UserError
from espalier.nas.predictor import Predictor
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.predictors.costs import MacsPredictor, ParamsPredictor

ALL_3X3 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
PARAMS = {
    "|avg_pool_3x3~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_1x1~2|": 129_306,
    "|nor_conv_3x3~0|+|avg_pool_3x3~0|skip_connect~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|": 587_386,
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|": 73_306,
    ALL_3X3: 1_531_546,
}


@pytest.fixture(scope="module")
def space() -> NasBench201:
    return NasBench201()


@pytest.fixture(scope="module")
def counter(space: NasBench201) -> CostCounter:
    return CostCounter(space)


@pytest.mark.parametrize("cell", PARAMS)
def test_params_of_the_benchmark(cell: str, space: NasBench201, counter: CostCounter) -> None:
    predictor: Predictor = ParamsPredictor(space, counter)
    estimate = predictor(space.parse(cell))
    assert (estimate.name, estimate.unit, estimate.higher_is_better) == ("params", "params", True)
    assert (estimate.value, estimate.status) == (PARAMS[cell], "ok")


def test_macs_of_the_benchmark(space: NasBench201, counter: CostCounter) -> None:
    predictor: Predictor = MacsPredictor(space, counter)
    estimate = predictor(space.parse(ALL_3X3))
    assert (estimate.name, estimate.unit, estimate.higher_is_better) == ("macs", "MACs", True)
    assert estimate.value == 7_783_050 + 6 * 35_389_440


def test_without_a_counter_of_its_own(small_space: NasBench201) -> None:
    cell = small_space.parse(ALL_3X3)
    built = sum(p.numel() for p in small_space.build(cell).parameters())
    assert ParamsPredictor(small_space)(cell).value == built
    assert MacsPredictor(small_space)(cell).value == MacsPredictor(small_space, CostCounter(small_space))(cell).value


def test_an_architecture_of_another_space_is_refused(small_space: NasBench201) -> None:
    with pytest.raises(UserError, match="width"):
        ParamsPredictor(small_space)(Architecture({"width": 4}))


def test_real_cells_have_the_table_s_costs(
    space: NasBench201, counter: CostCounter, benchmark_cells: list[dict[str, str]]
) -> None:
    params, macs = ParamsPredictor(space, counter), MacsPredictor(space, counter)
    for row in benchmark_cells[:: len(benchmark_cells) // 20][:20]:
        cell = space.parse(row["arch"])
        assert (params(cell).value, macs(cell).value) == (float(row["params_c10"]), float(row["macs_c10"]))
