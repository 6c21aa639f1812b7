"""Groups of options by gradient matching: exact cuts, the choice of the choice, racing and stopping."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from espalier.nas.choices import InputChoice, ValueChoice
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.supernets.fewshot.partition import (
    MAX_PARTITIONS,
    Groups,
    best_cut,
    count_near_equal,
    near_equal,
    pair_similarity,
    partitions,
)
from espalier.supernets.fewshot.similarity import distances
from espalier.supernets.fewshot.split import choose, split_at_random, split_by_gradients, splittable
from toy_space import ToySpace

HAND = [(1.0, 0.0), (0.9, 0.1), (0.0, 1.0), (0.1, 0.9), (0.05, 1.0)]


def hand_distances() -> NDArray[np.float64]:
    return distances([{"w": torch.tensor(g, dtype=torch.float64)} for g in HAND])


def clusters(groups: Groups, *, intra: float, inter: float) -> NDArray[np.float64]:
    n = sum(map(len, groups))
    d = np.full((n, n), inter)
    for group in groups:
        d[np.ix_(group, group)] = intra
    np.fill_diagonal(d, 0)
    return d


def intra_sum(d: NDArray[np.float64], groups: Groups) -> float:
    return sum(float(d[np.ix_(group, group)].sum()) / 2 for group in groups)


def brute_force(d: NDArray[np.float64], groups: int) -> float:
    """The least mean similarity over all assignments of near-equal sizes."""
    n = len(d)
    best = np.inf
    for labels in np.ndindex(*(groups,) * n):
        sizes = np.bincount(labels, minlength=groups)
        if sizes.max() - sizes.min() <= 1:
            pairs = [(a, b) for a in range(n) for b in range(a) if labels[a] != labels[b]]
            best = min(best, sum(1 - d[a, b] for a, b in pairs) / len(pairs))
    return best


@pytest.mark.parametrize(
    ("n", "groups", "sizes", "count"),
    [
        (5, 2, (2, 5), 10), (6, 2, (2, 6), 25), (7, 2, (2, 7), 56), (6, 3, (2, 6), 15), (7, 3, (2, 7), 105),
        (2, 2, (1, 1), 1), (3, 2, (1, 2), 3), (4, 2, (1, 4), 7), (5, 3, (1, 5), 25),
    ],
)  # fmt: skip
def test_how_many_partitions_there_are(n: int, groups: int, sizes: tuple[int, int], count: int) -> None:
    """Published sizes of the enumerations; 7 and 25 are the Stirling numbers S(4, 2) and S(5, 3)."""
    found = list(partitions(n, groups, *sizes))
    assert len(found) == len(set(found)) == count
    for labels in found:
        assert set(labels) == set(range(groups))
        assert all(sizes[0] <= labels.count(group) <= sizes[1] for group in range(groups))


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(2, 5))
def test_near_equal_partitions_are_counted_before_they_are_made(n: int, groups: int) -> None:
    if groups > n:
        with pytest.raises(ValueError, match="cannot be parted"):
            near_equal(n, groups)
    else:
        assert len(near_equal(n, groups)) == count_near_equal(n, groups)


def test_too_many_partitions_are_refused() -> None:
    assert count_near_equal(16, 2) == 6435 <= MAX_PARTITIONS < count_near_equal(17, 2)
    with pytest.raises(ValueError, match="24310 ways"):
        near_equal(17, 2)


def test_hand_gradients_are_cut_between_their_two_directions() -> None:
    """D = 1 - cosine; the best cut {0, 1} | {2, 3, 4} has intra sum .015326 and similarity .650238 across.

    The published numbers add 1e-6 to the product of the norms.
    """
    d = hand_distances()
    groups, similarity = best_cut(d, 2)
    assert groups == ((0, 1), (2, 3, 4))
    assert intra_sum(d, groups) == pytest.approx(0.015326, abs=1e-5)
    assert 6 * similarity == pytest.approx(0.650238, abs=1e-5)
    assert sum(d[a, b] for a in groups[0] for b in groups[1]) == pytest.approx(5.349762, abs=1e-5)
    others = [near_equal(5, 2).groups(i) for i in range(10)]
    assert sorted(intra_sum(d, g) for g in others)[1] == pytest.approx(1.677, abs=1e-3)


@pytest.mark.parametrize(
    ("d", "branches", "groups"),
    [
        (clusters(((0, 3), (1, 4), (2, 5)), intra=0.1, inter=1), 3, ((0, 3), (1, 4), (2, 5))),
        (clusters(((0,), (1, 2)), intra=0.1, inter=1), 2, ((0,), (1, 2))),  # not {5, 7} of kernel sizes 3, 5, 7
        (clusters(((0, 2), (1,)), intra=0.1, inter=1), 2, ((0, 2), (1,))),
        (clusters(((0,), (1,)), intra=0, inter=0.3), 2, ((0,), (1,))),
        (np.ones((5, 5)) - np.eye(5), 2, ((0, 1, 2), (3, 4))),  # nothing to choose: the first in lexicographic order
    ],
)
def test_true_clusters_are_found(d: NDArray[np.float64], branches: int, groups: Groups) -> None:
    assert best_cut(d, branches)[0] == groups


@settings(deadline=None)
@given(st.integers(2, 6), st.integers(2, 3), st.integers(0, 2**32 - 1))
def test_the_cut_is_exact_and_follows_the_options_order(n: int, groups: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    half = np.triu(random.uniform(0, 2, (n, n)), 1)
    d, order = half + half.T, random.permutation(n)
    if groups > n:
        return
    found, similarity = best_cut(d, groups)
    assert similarity == pytest.approx(brute_force(d, groups))
    again, same = best_cut(d[np.ix_(order, order)], groups)
    assert same == pytest.approx(similarity)
    assert {frozenset(order[list(group)].tolist()) for group in again} == {frozenset(group) for group in found}


def test_the_choice_whose_groups_agree_least_is_split() -> None:
    """Similarity across the cut: 4.8 of six pairs for x, .6 for y, though x has the smaller sum within (.4 to 2.0)."""
    groups = ((0, 1), (2, 3, 4))
    x, y = clusters(groups, intra=0.1, inter=0.2), clusters(groups, intra=0.5, inter=0.9)
    assert (intra_sum(x, groups), intra_sum(y, groups)) == pytest.approx((0.4, 2.0))
    assert 6 * best_cut(x, 2)[1] == pytest.approx(4.8)
    assert 6 * best_cut(y, 2)[1] == pytest.approx(0.6)
    assert choose({"x": x, "y": y}, 2) == "y"
    assert choose({"x": x, "same": x + 1e-15}, 2) == "x"


def test_choices_with_more_options_have_no_advantage() -> None:
    """A mean over pairs: equal similarities are equal, whether there are 9 pairs across or 12."""
    six, seven = (
        clusters(((0, 1, 2), (3, 4, 5)), intra=0, inter=1),
        clusters(((0, 1, 2), (3, 4, 5, 6)), intra=0, inter=1),
    )
    assert choose({"seven": seven - 0.1, "six": six}, 2) == "six"


class Noisy:
    """True distances, and the noise of a batch: what a supernet would measure."""

    def __init__(self, true: dict[str, NDArray[np.float64]], noise: float) -> None:
        self.true, self.noise = true, noise
        self.random = np.random.default_rng(0)
        self.sample_passes = 0
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        self.asked.append(tuple(names))
        self.sample_passes += 10 * sum(len(self.true[name]) for name in names)
        return {name: self._measured(self.true[name]) for name in names}

    def _measured(self, d: NDArray[np.float64]) -> NDArray[np.float64]:
        half = np.triu(self.random.normal(0, self.noise, d.shape), 1)
        return d + half + half.T


CLEAR = clusters(((0, 2), (1, 3, 4)), intra=0.2, inter=1.2)
VAGUE = clusters(((0, 2), (1, 3, 4)), intra=0.2, inter=0.4)
SPLIT_OPTIONS = {"repeats": 100, "agreement": 0.95, "seed": 0}
CLOSE = {name: clusters(((0, 2), (1, 3, 4)), intra=0.2, inter=d) for name, d in {"worse": 0.47, "better": 0.5}.items()}


def test_choices_that_cannot_win_are_no_longer_measured() -> None:
    true = {"a": VAGUE, "b": CLEAR, "c": VAGUE, "d": CLEAR}
    measure = Noisy(true, noise=0.9)
    split = split_by_gradients(measure, list(true), 2, **SPLIT_OPTIONS)
    assert split.choice in {"b", "d"}
    assert split.groups == ((0, 2), (1, 3, 4))
    assert measure.asked[:8] == [("a", "b", "c", "d")] * 8
    assert set(measure.asked[-1]) <= {"b", "d"}
    assert 8 < split.repeats == len(measure.asked) < 100
    assert split.agreement is not None and split.agreement >= 0.95
    assert split.sample_passes == sum(50 * len(names) for names in measure.asked)
    assert split.rivals.keys() == true.keys() - {split.choice}


def test_a_clear_answer_takes_the_fewest_repeats_and_none_takes_all_of_them() -> None:
    assert split_by_gradients(Noisy({"a": CLEAR}, noise=0.01), ["a"], 2, **SPLIT_OPTIONS).repeats == 8
    nothing = np.ones((5, 5)) - np.eye(5)
    split = split_by_gradients(Noisy({"a": nothing}, noise=1.0), ["a"], 2, repeats=30, agreement=0.95, seed=0)
    assert split.repeats == 30
    assert split.agreement is not None and split.agreement < 0.95


class Swaying(Noisy):
    """All similarities of a choice rise and fall together from batch to batch, so its groups are never in doubt."""

    def _measured(self, d: NDArray[np.float64]) -> NDArray[np.float64]:
        return d + self.random.normal(0, self.noise) * (1 - np.eye(len(d)))


def test_a_race_does_not_end_while_only_the_groups_are_certain() -> None:
    """Cuts of .53 and .50, known to a standard error of .058 after 8 repeats: the better one leads in about 70 %."""
    splits = []
    for seed in range(24):
        measure = Swaying(CLOSE, noise=0.115)
        measure.random = np.random.default_rng(seed)
        splits.append(split_by_gradients(measure, list(CLOSE), 2, **SPLIT_OPTIONS))
    assert all(split.groups == ((0, 2), (1, 3, 4)) for split in splits)
    assert sum(split.choice == "better" for split in splits) >= 20
    assert np.mean([split.repeats for split in splits]) > 16


def test_what_sways_all_choices_alike_does_not_prolong_the_race() -> None:

    class Together(Swaying):
        def __call__(self, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
            sway = self.random.normal(0, self.noise)
            return {name: self.true[name] + sway * (1 - np.eye(5)) for name in names}

    split = split_by_gradients(Together(CLOSE, noise=0.115), list(CLOSE), 2, **SPLIT_OPTIONS)
    assert (split.choice, split.repeats, split.agreement) == ("better", 8, 1.0)


def test_too_few_repeats_say_nothing_about_agreement() -> None:
    split = split_by_gradients(
        Noisy({"a": VAGUE, "b": CLEAR}, noise=0.01), ["a", "b"], 2, **{**SPLIT_OPTIONS, "repeats": 7}
    )
    assert (split.choice, split.groups, split.repeats) == ("b", ((0, 2), (1, 3, 4)), 7)
    assert split.agreement is None


def test_the_same_seed_gives_the_same_split_and_json_keeps_it() -> None:
    def split() -> object:
        return split_by_gradients(Noisy({"a": VAGUE, "b": CLEAR}, noise=1.0), ["a", "b"], 2, **SPLIT_OPTIONS)

    first = split_by_gradients(Noisy({"a": VAGUE, "b": CLEAR}, noise=1.0), ["a", "b"], 2, **SPLIT_OPTIONS)
    assert first == split()
    assert type(first).model_validate_json(first.model_dump_json()) == first


class Many(SearchSpace):
    """A choice of every kind that can and cannot be split."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(
            [
                ValueChoice("two", (1, 2)),
                ValueChoice("three", (1, 2, 3)),
                ValueChoice("very many", tuple(range(17))),
                InputChoice("inputs", 4, chosen=2),
                InputChoice("edges", 3, chosen=2, edges=("a", "b", "c")),
            ]
        )


def test_what_can_be_split() -> None:
    space = Many()
    whole = Region.whole(space)
    assert splittable(space, whole, 2) == ("two", "three", "inputs")
    assert splittable(space, whole, 3) == ("three", "inputs")
    assert splittable(space, whole.restrict("inputs", (0, 1, 2)), 2) == ("two", "three")
    with pytest.raises(ValueError, match="no choice"):
        split_by_gradients(Noisy({}, noise=1.0), [], 2, **SPLIT_OPTIONS)


def test_a_random_split_is_uniform() -> None:
    space, generator = ToySpace(), torch.Generator().manual_seed(0)
    draws = [split_at_random(space, ("layer", "depth"), 2, generator) for _ in range(900)]
    counts = {key: sum((d.choice, d.groups) == key for d in draws) for key in {(d.choice, d.groups) for d in draws}}
    assert len(counts) == 4
    assert abs(counts["depth", ((0,), (1,))] / 900 - 1 / 2) < 0.06
    assert abs(counts["layer", ((0, 1), (2,))] / 900 - 1 / 6) < 0.05


def test_pairs_are_those_above_the_diagonal() -> None:
    assert pair_similarity(np.array([[0, 0.25, 0.5], [0.25, 0, 2], [0.5, 2, 0]])).tolist() == [0.75, 0.5, -1]
