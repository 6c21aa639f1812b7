"""Surrogates: normal scores by hand, features, intervals, errors, NAS-Bench-201."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.measurement import Estimate
from espalier.nas.predictor import History
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.predictors.features import Features, Ranks, ScoreTable
from espalier.predictors.normal_scores import NormalScores
from espalier.predictors.ranking import rank_correlation
from espalier.predictors.regressors import MODELS
from espalier.predictors.surrogate import Surrogate
from toy_space import ToySpace
from user_errors import user_error

Rows = list[dict[str, str]]


class Score:
    """A predictor that counts how often it is asked."""

    name = "score"
    unit = ""
    higher_is_better = True

    def __init__(self, value: Callable[[Architecture], float]) -> None:
        self._value = value
        self.asked = 0

    def __call__(self, architecture: Architecture) -> Estimate:
        self.asked += 1
        return Estimate(self.name, self._value(architecture), self.unit, self.higher_is_better)


def convolutions(architecture: Architecture) -> float:
    return float(sum(option == "nor_conv_3x3" for option in architecture.values()))


def cells(space: NasBench201, n: int, seed: int = 0) -> list[Architecture]:
    generator = torch.Generator().manual_seed(seed)
    return [space.sample(generator) for _ in range(n)]


def history(space: NasBench201, n: int, value: Callable[[Architecture], float] = convolutions) -> History:
    return [(architecture, value(architecture)) for architecture in cells(space, n)]


def test_normal_scores_by_hand() -> None:
    """Of 10, 20, 20, 40 the shares are 1/8, 4/8 (tied, ranks 2 and 3), 7/8; Φ⁻¹(7/8) = 1.1503."""
    scores = NormalScores(np.array([20.0, 10.0, 40.0, 20.0]))
    z = 1.1503493803760079
    assert scores(np.array([10.0, 20.0, 40.0])) == pytest.approx([-z, 0, z])
    assert scores.inverse(np.array([z / 2, 2 * z, -2 * z])) == pytest.approx(
        [30, 60, 0]
    )  # beyond the ends, straight on
    assert scores.inverse(scores(np.array([3.0, 33.0, 77.0]))) == pytest.approx([3, 33, 77])
    assert NormalScores(np.array([5.0, 5.0])).inverse(np.array([-1.0, 0.0])) == pytest.approx([4, 5])


def test_scores_count_by_rank_and_say_what_is_missing() -> None:
    space = ToySpace()
    values = {"conv": 1e60, "pool": 10.0, "none": math.nan}
    generator = torch.Generator().manual_seed(0)
    architectures = [Architecture({**space.sample(generator), "layer": layer}) for layer in values for _ in range(2)]
    features = Features(space, (), ScoreTable([Score(lambda a: values[str(a["layer"])])]))
    # shares of 10 and 1e60, twice each, are 1/4 and 3/4, nan counts as 1/2, and missing is 0, 0, 1
    x = features.fit(architectures)
    high, present = math.sqrt(3 / 2), -math.sqrt(1 / 2)
    assert x[::2] == pytest.approx(np.array([[high, present], [-high, present], [0, -2 * present]]), abs=1e-12)
    assert features.transform(architectures).tolist() == x.tolist()
    values["conv"], values["pool"] = 1e30, -1.0
    other = Features(space, (), ScoreTable([Score(lambda a: values[str(a["layer"])])]))
    assert other.fit(architectures).tolist() == x.tolist()  # by rank, the same


def test_ranks_between_and_beyond() -> None:
    ranks = Ranks(np.array([[1.0], [1.0], [4.0], [9.0]]))
    assert ranks(np.array([[0.0], [1.0], [3.0], [4.0], [99.0], [math.nan]]))[:, 0].tolist() == [
        0,
        1 / 4,
        1 / 2,
        5 / 8,
        1,
        1 / 2,
    ]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_never_finite_does_not_matter(small_space: NasBench201, bad: float) -> None:
    past, asked = history(small_space, 30), cells(small_space, 10, seed=1)
    plain = Surrogate(small_space, model="ridge", seed=0)
    with_score = Surrogate(small_space, model="ridge", scores=[Score(lambda _: bad)], seed=0)
    plain.fit(past)
    with_score.fit(past)
    assert with_score.mean_and_std(asked)[0] == pytest.approx(plain.mean_and_std(asked)[0], abs=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_scores_alone_are_a_fitted_combination(small_space: NasBench201, model: str) -> None:
    """The outcome is a score of 17 orders of magnitude, upside down; another score says nothing."""
    past = history(small_space, 60, lambda a: -convolutions(a))
    score = Score(lambda a: 1e3 ** convolutions(a))
    noise = Score(lambda a: float(int(a.id, 16) % 7))
    surrogate = Surrogate(small_space, model=model, encodings=(), scores=[score, noise], seed=0)
    surrogate.fit(past)
    asked = cells(small_space, 100, seed=1)
    means, stds = surrogate.mean_and_std(asked)
    assert np.corrcoef(means, [-convolutions(a) for a in asked])[0, 1] > 0.95
    assert (stds >= 0).all()
    surrogate.estimates(asked)
    assert score.asked == len({a for a, _ in past} | set(asked))


@pytest.mark.parametrize("model", MODELS)
def test_estimates(small_space: NasBench201, model: str) -> None:
    """What every learner promises: in order, from this history only, the same one by one; intervals around values."""
    past, asked = history(small_space, 24), cells(small_space, 6, seed=1)
    surrogate = Surrogate(small_space, model=model, unit="convs", higher_is_better=False, seed=0)
    surrogate.fit([(a, 100 - y) for a, y in past])
    surrogate.fit([*past, past[0]])
    estimates = surrogate.estimates(asked)
    means, stds = surrogate.mean_and_std(asked)
    assert [e.value for e in estimates] == means.tolist()
    for estimate in estimates:
        assert (estimate.name, estimate.unit, estimate.higher_is_better) == ("surrogate", "convs", False)
        assert estimate.interval is not None
        assert estimate.interval[0] <= estimate.value <= estimate.interval[1]
    assert dict(estimates[2].provenance) == {
        "model": model,
        "encodings": "one_hot",
        "history": 25,
        "coverage": 0.95,
        "seed": 0,
        "std": stds[2],
    }
    single = surrogate(asked[2])
    assert single.value == pytest.approx(estimates[2].value)
    assert single.interval == pytest.approx(estimates[2].interval)
    fresh = Surrogate(small_space, model=model, seed=0)
    fresh.fit([*past, past[0]])
    assert fresh.mean_and_std(asked)[0].tolist() == means.tolist()
    assert surrogate.estimates([]) == []


@pytest.mark.parametrize("model", MODELS)
def test_the_shortest_history_and_one_without_differences(small_space: NasBench201, model: str) -> None:
    surrogate = Surrogate(small_space, model=model, seed=0)
    surrogate.fit(history(small_space, 8))
    short = surrogate(cells(small_space, 1)[0])
    assert short.provenance["coverage"] == 8 / 9
    surrogate.fit(history(small_space, 8, lambda _: 7.0))
    flat = surrogate(cells(small_space, 1)[0])
    assert flat.value == pytest.approx(7)
    assert flat.interval == pytest.approx((7, 7), abs=1e-6)


def test_better_than_all_seen_can_be_expected(small_space: NasBench201) -> None:
    surrogate = Surrogate(small_space, seed=0)
    surrogate.fit([(a, convolutions(a)) for a in cells(small_space, 80) if convolutions(a) < 3])
    dense = Architecture(dict.fromkeys(small_space.choices(), "nor_conv_3x3"))
    assert surrogate.mean_and_std([dense])[0] > 2


def test_what_a_user_can_get_wrong(small_space: NasBench201) -> None:
    with user_error("model", "unknown", nearest="forest"):
        Surrogate(small_space, model="forst", seed=0)
    with user_error("encodings", "unknown", nearest="path"):
        Surrogate(small_space, encodings=("paths",), seed=0)
    with user_error("encodings", "missing"):
        Surrogate(small_space, encodings=(), seed=0)
    surrogate = Surrogate(small_space, seed=0)
    past = history(small_space, 8)
    with user_error("surrogate", "missing"):
        surrogate(past[0][0])
    with user_error("history", "too_few", says="8"):
        surrogate.fit(past[:7])
    with user_error("history", "too_few", says="different"):
        surrogate.fit(past[:1] * 8)
    with user_error("history", "invalid"):
        surrogate.fit([*past, (past[0][0], math.nan)])
    with pytest.raises(UserError, match="'conv'"):
        surrogate.fit([*past, (past[0][0].replace("edge_1_0", "conv"), 1.0)])
    with user_error("encodings", "unsupported"):
        dead = [Architecture({**a, **dict.fromkeys(("edge_3_0", "edge_3_1", "edge_3_2"), "none")}) for a, _ in past]
        Surrogate(small_space, encodings=("path",), seed=0).fit([(a, 1.0) for a in dead])


LEAST = {("gp", "one_hot"): 0.75, ("forest", "path"): 0.75, ("boosting", "graph"): 0.8, ("ridge", "path"): 0.75}
"""Spearman's ρ; histories of the seeds 0, 1 and 2 stay 0.06 above or more. A random guess has 0 ± 0.05."""


@pytest.mark.parametrize(("model", "encoding"), LEAST)
def test_on_nasbench201(small_space: NasBench201, benchmark_cells: Rows, model: str, encoding: str) -> None:
    """From the accuracy of 150 cells that of 500 others, and intervals that hold about 95 % of the truths."""
    chosen = np.random.default_rng(0).permutation(len(benchmark_cells))[:650]
    judged = [(small_space.parse(row["arch"]), float(row["c10_valid"])) for row in (benchmark_cells[i] for i in chosen)]
    surrogate = Surrogate(small_space, model=model, encodings=(encoding,), seed=0)
    surrogate.fit(judged[:150])
    estimates = surrogate.estimates([architecture for architecture, _ in judged[150:]])
    truths = [truth for _, truth in judged[150:]]
    ranking = rank_correlation([e.value for e in estimates], truths, resamples=10, seed=0)
    assert ranking.spearman > LEAST[model, encoding]
    inside = [e.interval[0] <= y <= e.interval[1] for e, y in zip(estimates, truths, strict=True) if e.interval]
    assert len(inside) == 500
    assert 0.90 <= np.mean(inside) <= 0.99
