"""Rank ensembles: the formula by hand, and what ranks promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espalier.nas.architecture import Architecture
from espalier.nas.measurement import Estimate
from espalier.predictors.ensemble import RankEnsemble, aggregate_ranks
from toy_space import ToySpace
from user_errors import user_error

UP = {"a": True, "b": True}


class Known:
    """A predictor that looks its values up."""

    unit = ""

    def __init__(self, name: str, values: dict[str, float], *, higher_is_better: bool = True) -> None:
        self.name, self.values, self.higher_is_better, self.asked = name, values, higher_is_better, 0

    def __call__(self, architecture: Architecture) -> Estimate:
        self.asked += 1
        return Estimate(self.name, self.values[architecture.id], self.unit, self.higher_is_better)


@pytest.fixture
def architectures() -> list[Architecture]:
    space, generator = ToySpace(), torch.Generator().manual_seed(0)
    drawn = {a.id: a for a in (space.sample(generator) for _ in range(60))}
    return list(drawn.values())[:6]


def test_logarithms_of_ranks_by_hand() -> None:
    # ranks of a: 1 2 3 4, of b: 4 3 2 1; Σ log(r / 4)
    total = aggregate_ranks({"a": [1, 2, 3, 4], "b": [9, 8, 7, 6]}, UP, "log")
    assert total.tolist() == pytest.approx([math.log(4 / 16), math.log(6 / 16), math.log(6 / 16), math.log(4 / 16)])


def test_sums_of_ranks_by_hand() -> None:
    total = aggregate_ranks({"a": [1, 2, 3, 4], "b": [1, 1, 5, 7]}, UP, "sum")
    assert total.tolist() == pytest.approx([(1 + 1.5) / 4, (2 + 1.5) / 4, (3 + 3) / 4, (4 + 4) / 4])


def test_a_direction_turns_the_ranks() -> None:
    down = aggregate_ranks({"a": [1, 2, 3]}, {"a": False}, "sum")
    assert down.tolist() == pytest.approx([1, 2 / 3, 1 / 3])


def test_what_is_not_finite_ranks_worst() -> None:
    values = [math.nan, 2, math.inf, -math.inf, 3]
    for upwards in (True, False):
        total = aggregate_ranks({"a": values}, {"a": upwards}, "sum")
        assert total.tolist() == pytest.approx([0.4, 0.8, 0.4, 0.4, 1.0] if upwards else [0.4, 1.0, 0.4, 0.4, 0.8])


@given(st.lists(st.integers(-40, 40), min_size=2, max_size=20))
def test_only_the_order_counts(values: list[int]) -> None:
    stretched = [math.exp(value / 10) for value in values]
    assert np.allclose(aggregate_ranks({"a": values}, UP, "log"), aggregate_ranks({"a": stretched}, UP, "log"))


def test_an_architecture_is_ranked_among_the_reference(architectures: list[Architecture]) -> None:
    *reference, new = architectures
    values = {a.id: float(i) for i, a in enumerate(reference)}
    a, b = Known("a", values | {new.id: 2.5}), Known("b", values | {new.id: -1.0}, higher_is_better=False)
    estimate = RankEnsemble("both", [a, b], reference)(new)
    assert estimate.value == pytest.approx(math.log(4 / 6) + math.log(6 / 6))
    assert estimate.provenance == {"m": 6, "members": "a+b"}
    assert (estimate.name, estimate.higher_is_better, estimate.status) == ("both", True, "ok")


def test_the_reference_is_asked_once(architectures: list[Architecture]) -> None:
    *reference, new = architectures
    member = Known("a", {a.id: float(i) for i, a in enumerate(architectures)})
    ensemble = RankEnsemble("one", [member], reference)
    assert member.asked == 0
    assert ensemble(new) == ensemble(new)
    assert member.asked == len(reference) + 2


def test_an_ensemble_of_nothing_is_refused(architectures: list[Architecture]) -> None:
    with user_error("both", "too_few"):
        RankEnsemble("both", [], architectures)
    with user_error("both", "too_few"):
        RankEnsemble("both", [Known("a", {})], [])
