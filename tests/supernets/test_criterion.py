"""Which removal hurts most or least: by accuracy where it can tell, else by loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from espalier.nas.training import Diverged
from espalier.supernets.evaluation import Evaluation
from espalier.supernets.selection.criterion import Criterion, compare


def judged(right: int, *, of: int = 1024, loss: float = 1.0) -> Evaluation:
    """The first `right` images are right."""
    return Evaluation(torch.arange(of) < right, torch.full((of,), loss))


@pytest.mark.parametrize(
    ("criterion", "winner", "decided_by"),
    [("auto", 1, "loss"), ("loss", 1, "loss"), ("accuracy", 0, "accuracy")],
)
def test_equal_accuracies_are_decided_by_the_loss(criterion: Criterion, winner: int, decided_by: str) -> None:
    """Losses (1, 3, 2). By accuracy alone the first wins, as in the authors' strict comparison."""
    without = {i: judged(1024, loss=loss) for i, loss in enumerate((1.0, 3.0, 2.0))}
    comparison = compare(without, criterion, hurts="most")
    assert (comparison.decided, comparison.decided_by) == (winner, decided_by)
    assert comparison.margin == (1.0 if decided_by == "loss" else 0.0)


@pytest.mark.parametrize(("difference", "decided_by"), [(2, "loss"), (4, "loss"), (5, "accuracy"), (100, "accuracy")])
def test_auto_needs_a_significant_difference(difference: int, decided_by: str) -> None:
    """McNemar: b - c > 2 sqrt(b + c); here c = 0, so from 5 images on. The loss says the opposite."""
    without = {7: judged(900, loss=1.0), 9: judged(900 - difference, loss=0.5)}
    comparison = compare(without, "auto", hurts="most")
    assert comparison.decided_by == decided_by
    assert comparison.decided == (9 if decided_by == "accuracy" else 7)
    if decided_by == "accuracy":
        assert comparison.margin == pytest.approx(difference / 1024)
        assert comparison.standard_error == pytest.approx(math.sqrt(difference) / 1024)


def test_the_pairs_count_not_the_totals() -> None:
    """Ten images between the totals: 10 against 0 disagree is significant, 60 against 50 (2 sqrt(110) = 21) is not."""
    images = torch.arange(200)
    base = Evaluation(images < 100, torch.ones(200))
    nested = Evaluation(images < 90, torch.ones(200))
    crossed = Evaluation((images < 40) | ((images >= 100) & (images < 150)), torch.ones(200))
    assert base.accuracy - nested.accuracy == pytest.approx(base.accuracy - crossed.accuracy)
    assert compare({0: base, 1: nested}, "auto", hurts="most").decided_by == "accuracy"
    assert compare({0: base, 1: crossed}, "auto", hurts="most").decided_by == "loss"


@pytest.mark.parametrize("criterion", ["accuracy", "loss", "auto"])
def test_of_equal_candidates_the_first_is_kept(criterion: Criterion) -> None:
    without = {i: judged(50, of=100) for i in (2, 5, 8)}
    assert compare(without, criterion, hurts="most").decided == 2
    assert compare(without, criterion, hurts="least").decided == 8


def test_the_record_tells_what_it_rests_on() -> None:
    without = {3: judged(75, of=100, loss=0.5), 4: judged(25, of=100, loss=2.0), 6: judged(50, of=100, loss=1.0)}
    comparison = compare(without, "accuracy", hurts="most")
    assert comparison.model_dump() == {
        "candidates": (3, 4, 6),
        "accuracies": (0.75, 0.25, 0.5),
        "losses": (0.5, 2.0, 1.0),
        "images": 100,
        "decided": 4,
        "decided_by": "accuracy",
        "margin": 0.25,
        "standard_error": 0.05,
    }
    assert compare(without, "accuracy", hurts="least").decided == 3


@given(
    st.lists(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), min_size=6, max_size=6), min_size=2, max_size=4),
    st.sampled_from(["auto", "accuracy", "loss"]),
    st.sampled_from(["most", "least"]),
    st.permutations(range(6)),
)
def test_the_winner_is_extreme_in_what_decided_and_images_have_no_order(
    rows: Sequence[Sequence[tuple[bool, float]]], criterion: Criterion, hurts: str, order: Sequence[int]
) -> None:
    def evaluations(order: Sequence[int]) -> dict[int, Evaluation]:
        return {
            i: Evaluation(torch.tensor([row[j][0] for j in order]), torch.tensor([row[j][1] for j in order]))
            for i, row in enumerate(rows)
        }

    comparison = compare(evaluations(range(6)), criterion, hurts=hurts)  # type: ignore[arg-type]
    harm = [-a for a in comparison.accuracies] if comparison.decided_by == "accuracy" else list(comparison.losses)
    extreme = max(harm) if hurts == "most" else min(harm)
    assert harm[comparison.decided] == pytest.approx(extreme)
    rest = [value for i, value in enumerate(harm) if i != comparison.decided]
    second = max(rest) if hurts == "most" else min(rest)
    assert comparison.margin == pytest.approx(abs(extreme - second), abs=1e-12)
    shuffled = compare(evaluations(order), criterion, hurts=hurts)  # type: ignore[arg-type]
    assert shuffled.decided_by == comparison.decided_by
    assert shuffled.margin == pytest.approx(comparison.margin)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="two candidates"):
        compare({0: judged(1)}, "auto", hurts="most")
    with pytest.raises(ValueError, match="same images"):
        compare({0: judged(1), 1: judged(1, of=512)}, "auto", hurts="most")
    with pytest.raises(Diverged, match="not finite"):
        compare({0: judged(1), 1: judged(1, loss=math.nan)}, "accuracy", hurts="most")
