"""Learning curves: calibration by hand, errors, real trainings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from espalier.predictors.conformal import calibrate
from espalier.predictors.learning_curve import LearningCurve
from user_errors import user_error

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


def test_quantile_by_hand() -> None:
    """Predictions 0 with σ = 2: residuals y / 2, of which the ⌈0.95 * 41⌉ = 39th of 40 is 19.5."""
    y = np.arange(1.0, 41.0)
    two = calibrate(y, range(40), lambda _, test: (np.zeros(len(test)), np.full(len(test), 2.0)), seed=0)
    assert (two.q, two.floor, two.coverage) == (19.5, 0.2, 0.95)
    intervals = two.intervals(np.array([1.0, 1.0]), np.array([2.0, 0.1]))
    assert np.allclose(intervals, [[-38, 40], [1 - 3.9, 1 + 3.9]])


def test_few_residuals_give_the_largest_and_say_so() -> None:
    y = np.array([3.0, 1.0, 2.0])
    few = calibrate(y, range(3), lambda _, test: (np.zeros(len(test)), np.zeros(len(test))), seed=0)
    assert (few.q, few.floor, few.coverage) == (3.0, 1.0, 0.75)


def test_a_group_is_held_out_together() -> None:
    groups = ["a", "b", "a", "c", "b", "d", "e", "f", "a"]
    seen: list[int] = []

    def held_out(train: Indices, test: Indices) -> tuple[Floats, Floats]:
        assert not {groups[i] for i in train} & {groups[i] for i in test}
        assert len(train) + len(test) == len(groups)
        seen.extend(test.tolist())
        return np.zeros(len(test)), np.ones(len(test))

    calibrate(np.ones(len(groups)), groups, held_out, seed=0)
    assert sorted(seen) == list(range(len(groups)))


def exponential(n: int, seed: int) -> tuple[Floats, Floats]:
    """Curves a - b exp(-t / c) at t = 1 ... 6, which end at a."""
    generator = np.random.default_rng(seed)
    a, b, c = generator.uniform(0.6, 0.95, n), generator.uniform(0.2, 0.5, n), generator.uniform(2, 8, n)
    return a[:, None] - b[:, None] * np.exp(-np.arange(1, 7) / c[:, None]), a


def test_exponential_curves_are_continued() -> None:
    curves, finals = exponential(80, 0)
    model = LearningCurve(seed=0)
    model.fit(curves[:40], finals[:40])
    values, intervals = model.predict(curves[40:])
    assert np.abs(values - finals[40:]).mean() < 0.3 * np.abs(curves[40:, -1] - finals[40:]).mean()
    assert np.mean((intervals[:, 0] <= finals[40:]) & (finals[40:] <= intervals[:, 1])) >= 0.8
    assert np.ptp(intervals[:, 1] - intervals[:, 0]) < 1e-12
    again = LearningCurve(seed=0)
    again.fit(curves[:40], finals[:40])
    assert np.array_equal(again.predict(curves[40:])[0], values)
    with user_error("curves", "mismatch", says="6 epochs"):
        model.predict(curves[:, :5])
    with user_error("curves", "mismatch", says="not 6 and 16"):
        model.predict(curves, np.ones((80, 1)))


def test_networks_are_features_too() -> None:
    """Curves of noise say nothing; the network's feature says all."""
    generator = np.random.default_rng(0)
    curves, networks = generator.random((40, 3)), generator.random((40, 1))
    finals = networks[:, 0]
    model = LearningCurve(seed=0)
    model.fit(curves[:30], finals[:30], networks[:30])
    assert np.corrcoef(model.predict(curves[30:], networks[30:])[0], finals[30:])[0, 1] > 0.8


@pytest.mark.parametrize(
    ("curves", "finals", "where", "code"),
    [
        (np.ones((7, 3)), np.ones(7), "curves", "too_few"),
        (np.ones((9, 3)), np.ones(8), "curves", "mismatch"),
        (np.ones(9), np.ones(9), "curves", "invalid"),
        (np.full((9, 3), np.nan), np.ones(9), "curves", "invalid"),
        (np.ones((9, 3)), np.full(9, np.inf), "finals", "invalid"),
    ],
)
def test_what_cannot_be_learnt_from(curves: Floats, finals: Floats, where: str, code: Any) -> None:
    with user_error(where, code):
        LearningCurve(seed=0).fit(curves, finals)


def test_asked_too_early() -> None:
    with user_error("curves", "missing"):
        LearningCurve(seed=0).predict(np.ones((1, 3)))


@pytest.mark.slow
def test_real_trainings_of_digits() -> None:
    """60 perceptrons of random width and learning rate, 18 epochs; from the first third of 40 of them the rest."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    x, y = load_digits(return_X_y=True)
    x = x / 16
    order = np.random.default_rng(0).permutation(len(x))
    train, held_out = order[:600], order[600:1200]
    generator = np.random.default_rng(1)
    curves = np.empty((60, 18))
    for i in range(60):
        widths = tuple(int(v) for v in 2 ** generator.uniform(2, 5.5, size=generator.integers(1, 3)))
        rate = 10 ** generator.uniform(-3.5, -1.5)
        network = MLPClassifier(widths, learning_rate_init=rate, random_state=i, batch_size=100)
        for epoch in range(18):
            network.partial_fit(x[train], y[train], classes=range(10))
            curves[i, epoch] = network.score(x[held_out], y[held_out])
    finals = curves[:, -1]
    model = LearningCurve(seed=0)
    model.fit(curves[:40, :6], finals[:40])
    values, intervals = model.predict(curves[40:, :6])
    last_seen = np.abs(curves[40:, 5] - finals[40:]).mean()
    assert np.abs(values - finals[40:]).mean() < 0.7 * last_seen
    assert np.mean((intervals[:, 0] <= finals[40:]) & (finals[40:] <= intervals[:, 1])) >= 0.8
