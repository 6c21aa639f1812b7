"""The nearest architecture under a limit: few changes, the least utility given up for what is taken off."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from espalier.nas.architecture import Architecture
from espalier.nas.search.nearest import nearest_feasible, neighbours
from espalier.nas.spaces.nasbench201 import NasBench201

MS = {"none": 0.0, "skip_connect": 0.1, "avg_pool_3x3": 0.5, "nor_conv_1x1": 1.0, "nor_conv_3x3": 3.0}
UTILITY = {"none": 0.0, "avg_pool_3x3": 0.5, "skip_connect": 1.0, "nor_conv_1x1": 2.5, "nor_conv_3x3": 3.0}


@pytest.fixture(scope="module")
def space() -> NasBench201:
    with torch.device("meta"):
        return NasBench201((1, 8, 8), channels=2, cells=1)


def total(table: Mapping[str, float], architecture: Architecture) -> float:
    return sum(table[str(option)] for option in architecture.values())


def dense(space: NasBench201) -> Architecture:
    return Architecture(dict.fromkeys(space.choices(), "nor_conv_3x3"))


def find(
    space: NasBench201, limit: float, *, true_scale: float = 1.0
) -> tuple[Architecture | None, list[Architecture]]:
    asked: list[Architecture] = []

    def fits(architecture: Architecture) -> bool:
        asked.append(architecture)
        return true_scale * total(MS, architecture) <= limit

    found = nearest_feasible(
        space, dense(space), usage=lambda a: total(MS, a) / limit, fits=fits, utility=lambda a: total(UTILITY, a)
    )
    return found, asked


def test_one_change_of_the_best_kind_is_enough(space: NasBench201) -> None:
    """18 ms, 16 allowed: 3x3 to 1x1 takes 2 off and gives up 0.5; the first that is asked fits."""
    found, asked = find(space, 16.0)
    assert found is not None
    assert sorted(map(str, found.values())) == ["nor_conv_1x1", *["nor_conv_3x3"] * 5]
    assert asked == [found]


def test_several_changes_give_up_the_least_worth_for_what_they_take_off(space: NasBench201) -> None:
    """12 ms: three times 3x3 to 1x1, at 0.25 a ms; to skip it would be 0.69."""
    found, asked = find(space, 12.0)
    assert found is not None
    assert sorted(map(str, found.values())) == [*["nor_conv_1x1"] * 3, *["nor_conv_3x3"] * 3]
    assert asked == [found]


def test_guesses_that_are_too_low_cost_tries_and_no_more(space: NasBench201) -> None:
    found, asked = find(space, 16.0, true_scale=1.3)
    assert found is not None
    assert 1.3 * total(MS, found) <= 16
    assert len(asked) == len(set(asked)) > 1


def test_nothing_fits(space: NasBench201) -> None:
    """Neither where all that is tried fails, nor where no change makes the network lighter."""
    start = dense(space)
    lighter = {"usage": lambda a: total(MS, a) / 1.0, "utility": lambda a: total(UTILITY, a)}
    assert nearest_feasible(space, start, fits=lambda a: False, **lighter) is None
    assert nearest_feasible(space, start, usage=lambda a: 2.0, fits=lambda a: True, utility=lambda a: 0.0) is None


def test_one_change_is_every_other_option_of_every_choice(space: NasBench201) -> None:
    changes = list(neighbours(space, dense(space)))
    assert len(changes) == len(set(changes)) == 6 * 4
    assert all(sum(a[n] != "nor_conv_3x3" for n in a) == 1 for a in changes)
