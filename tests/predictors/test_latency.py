"""The latency predictor: a law that it finds exactly, other devices' tables, intervals, what it refuses."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from espalier.nas.architecture import Architecture
from espalier.nas.measurement import Estimate
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.predictors.encoding import Operations
from espalier.predictors.latency import CostGuide, Guides, LatencyPredictor, spread
from user_errors import user_error

MS = {"none": 0.1, "skip_connect": 0.2, "avg_pool_3x3": 0.5, "nor_conv_1x1": 1.0, "nor_conv_3x3": 3.0}


class Rule:
    """A cost by rule; `asked` counts."""

    def __init__(self, cost: Callable[[Architecture], float]) -> None:
        self._cost = cost
        self.asked = 0

    def cost(self, architecture: Architecture) -> float:
        self.asked += 1
        return self._cost(architecture)


def ms_of(architecture: Architecture) -> float:
    return 1 + sum(MS[str(option)] for option in architecture.values())


def cells(space: NasBench201, n: int, seed: int = 0) -> list[Architecture]:
    generator = torch.Generator().manual_seed(seed)
    return [space.sample(generator) for _ in range(n)]


def test_a_power_law_of_a_guide_is_found(small_space: NasBench201) -> None:
    """ms = 3 g^0.8 is ln ms = ln 3 + 0.8 ln g, a straight line between logarithms."""
    guide = Rule(ms_of)
    predictor = LatencyPredictor(small_space, guides=[CostGuide("other", guide)], seed=0)
    history = [(a, 3 * ms_of(a) ** 0.8) for a in cells(small_space, 10)]
    predictor.fit(history)
    asked = cells(small_space, 20, seed=1)
    for architecture, estimate in zip(asked, predictor.estimates(asked), strict=True):
        assert estimate.value == pytest.approx(3 * ms_of(architecture) ** 0.8, rel=0.01)
        assert estimate.interval is not None
        assert estimate.interval[0] <= estimate.value <= estimate.interval[1]
        assert (estimate.name, estimate.unit, estimate.higher_is_better) == ("latency_ms", "ms", False)
    assert predictor(asked[0]).provenance["coverage"] == 10 / 11
    assert predictor(asked[0]).provenance["guides"] == "other"
    assert guide.asked == len({*asked, *(a for a, _ in history)})


def test_two_devices_weigh_more_than_one(small_space: NasBench201) -> None:
    """ms = sqrt(g h): half of the logarithm of each; with one of them alone the rest is guessed."""

    def convolutions(architecture: Architecture) -> float:
        return 1.0 + sum("conv" in str(option) for option in architecture.values())

    guides = [CostGuide("g", Rule(ms_of)), CostGuide("h", Rule(convolutions))]
    history = [(a, math.sqrt(ms_of(a) * convolutions(a))) for a in cells(small_space, 10)]
    asked = cells(small_space, 40, seed=1)
    truth = np.array([math.sqrt(ms_of(a) * convolutions(a)) for a in asked])
    errors = []
    for known in (guides[:1], guides):
        predictor = LatencyPredictor(small_space, guides=known, encodings=(), seed=0)
        predictor.fit(history)
        errors.append(float(np.median(np.abs([e.value for e in predictor.estimates(asked)] / truth - 1))))
    assert errors[1] < 0.01 < errors[0]


def test_intervals_hold_on_new_architectures(small_space: NasBench201) -> None:
    """Noise of 5 %, 60 measurements: about 95 % of 300 new ones are inside."""
    rng = np.random.default_rng(0)

    def noisy(architectures: list[Architecture]) -> list[tuple[Architecture, float]]:
        return [(a, ms_of(a) * math.exp(rng.normal(0, 0.05))) for a in architectures]

    predictor = LatencyPredictor(small_space, guides=[CostGuide("g", Rule(ms_of))], encodings=(), seed=0)
    predictor.fit(noisy(cells(small_space, 60)))
    judged = noisy(cells(small_space, 300, seed=1))
    intervals = [estimate.interval for estimate in predictor.estimates([a for a, _ in judged])]
    inside = [i is not None and i[0] <= y <= i[1] for i, (_, y) in zip(intervals, judged, strict=True)]
    assert 0.90 <= np.mean(inside) <= 0.99


def test_without_tables_operations_and_costs_rank(small_space: NasBench201) -> None:
    predictor = LatencyPredictor(small_space, linear=("operations",), encodings=("one_hot",), seed=0)
    predictor.fit([(a, ms_of(a)) for a in cells(small_space, 60)])
    asked = cells(small_space, 100, seed=1)
    guess = [estimate.value for estimate in predictor.estimates(asked)]
    assert np.corrcoef(guess, [ms_of(a) for a in asked])[0, 1] > 0.9
    assert predictor.estimates([]) == []


def test_operations_are_counted_where_they_count(small_space: NasBench201) -> None:
    """The 3x3 convolution of the second cell leads nowhere."""
    operations = Operations(small_space)
    texts = (
        "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|",
        "|nor_conv_3x3~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|",
    )
    fitted = [small_space.parse(text) for text in texts]
    operations.fit(fitted)
    assert operations.transform(fitted).tolist() == [[0, 2, 1], [1, 0, 0]]  # 1x1, 3x3, skip


def test_spread_reaches_the_ends() -> None:
    guides = np.concatenate([np.full(97, 1.0), [0.0, 5.0, 9.0]])[:, None] + np.arange(100)[:, None] * 1e-6
    chosen = spread(guides, 4, seed=0)
    assert len(chosen) == 4
    assert {97, 98, 99} < set(chosen)


def test_what_it_refuses(small_space: NasBench201) -> None:
    with user_error("guides", "missing"):
        LatencyPredictor(small_space, seed=0)
    with user_error("encodings", "unknown", nearest="operations"):
        LatencyPredictor(small_space, linear=("operation",), seed=0)
    predictor = LatencyPredictor(small_space, guides=[CostGuide("g", Rule(ms_of))], seed=0)
    some = cells(small_space, 8)
    with user_error("latency_ms", "missing"):
        predictor(some[0])
    with user_error("history", "too_few", says="7"):
        predictor.fit([(a, 1.0) for a in some[:7]])
    for bad in (0.0, -1.0, math.nan):
        with user_error("history", "out_of_range"):
            predictor.fit([*((a, 1.0) for a in some), (some[0], bad)])
    with user_error("zero", "out_of_range", says=some[0].id):
        Guides([CostGuide("zero", Rule(lambda a: 0.0))])(some)


@pytest.mark.slow
def test_transfer_on_measured_devices(small_space: NasBench201, shared_data: Path) -> None:
    """Ten measurements on a new device, five tables of others: Spearman's rho of 0.9 or more on 300 cells."""
    from scipy.stats import spearmanr

    def rows(name: str) -> list[dict[str, str]]:
        with gzip.open(shared_data / name, "rt") as file:
            return list(csv.DictReader(file))

    texts, measured = rows("nasbench201_cifar10.csv.gz"), rows("nasbench201_latency.csv.gz")
    index = [i for i in np.random.default_rng(0).permutation(len(texts)) if float(measured[i]["raspi4_ms"]) > 2.5][:310]
    drawn = {small_space.parse(texts[i]["arch"]): measured[i] for i in index}

    def column(name: str) -> Rule:
        return Rule(lambda a: float(drawn[a][name]))

    for device in ("gold_6226_ms", "eyeriss_ms"):
        others = [name for name in measured[0] if name not in ("index", device)]
        predictor = LatencyPredictor(small_space, guides=[CostGuide(n, column(n)) for n in others], seed=0)
        history = [(a, float(row[device])) for a, row in drawn.items()]
        predictor.fit(history[:10])
        estimates: list[Estimate] = predictor.estimates([a for a, _ in history[10:]])
        truths = [truth for _, truth in history[10:]]
        assert spearmanr([e.value for e in estimates], truths).statistic > 0.9
