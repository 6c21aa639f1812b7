from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from espalier.nas.pareto import non_dominated

POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), max_size=12)


def test_hand_example() -> None:
    points = [(0.9, 3.0), (0.8, 2.0), (0.8, 2.5), (0.9, 3.0), (0.1, 1.0), (0.1, 9.0)]
    assert non_dominated(points, ("maximize", "minimize")).tolist() == [True, True, False, True, True, False]
    assert non_dominated([], ("maximize", "minimize")).tolist() == []


@given(POINTS)
def test_every_point_off_the_front_is_dominated_by_one_on_it(points: list[tuple[int, ...]]) -> None:
    def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        gains = (a[0] - b[0], b[1] - a[1], a[2] - b[2])
        return min(gains) >= 0 and max(gains) > 0

    mask = non_dominated(points, ("maximize", "minimize", "maximize"))
    front = [point for point, on_front in zip(points, mask, strict=True) if on_front]
    for point, on_front in zip(points, mask, strict=True):
        assert on_front != any(dominates(other, point) for other in points)
        assert on_front or any(dominates(other, point) for other in front)
    assert mask.dtype == np.bool_
