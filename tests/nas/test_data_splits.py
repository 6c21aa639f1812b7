"""Splits: disjoint, exhaustive, balanced, repeatable, and the test images held back."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from espalier.nas.data import Images, SplitFractions, Splits, split
from espalier.nas.data.balance import Limit, apportion
from espalier.nas.data.duplicates import count_shared
from espalier.nas.data.splits import PARTS
from espalier.nas.errors import UserError
from user_errors import user_error


def shares_of(*shares: float) -> SplitFractions:
    return SplitFractions(**dict(zip(PARTS, shares, strict=False)))


QUARTERS = shares_of(0.25, 0.25, 0.25, 0.25)


def images(counts: list[int], seed: int = 0) -> Images:
    """Images of 1x1x4 whose first three pixels are their own number, of `counts[k]` images in class k."""
    labels = torch.cat([torch.full((count,), k) for k, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    number = torch.arange(len(labels))
    pixels = torch.stack([number % 256, number // 256, number * 0, number * 7 % 251], 1).to(torch.uint8)
    return Images(pixels.view(-1, 1, 1, 4), labels, tuple("abcdefgh"[: len(counts)]), "numbers")


def numbers(part: Images) -> list[int]:
    flat = part.pixels.view(-1, 4).long()
    return (flat[:, 0] + 256 * flat[:, 1]).tolist()


def parts(splits: Splits) -> tuple[Images, ...]:
    return splits.train, splits.architecture, splits.selection, splits.final_test()


@st.composite
def fractions(draw: st.DrawFn) -> SplitFractions:
    weights = [draw(st.integers(1, 20)) for _ in range(4)]
    weights[1] *= draw(st.integers(0, 1))
    return shares_of(*(weight / sum(weights) for weight in weights))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(90, 200), min_size=1, max_size=5),
    fractions(),
    st.integers(0, 2**40),
)
def test_parts_are_disjoint_exhaustive_balanced_and_repeatable(
    counts: list[int], shares: SplitFractions, seed: int
) -> None:
    pool = images(counts)
    splits = split(pool, None, shares, seed=seed)
    every = [number for part in parts(splits) for number in numbers(part)]
    assert sorted(every) == list(range(len(pool)))
    kept = sum(part.labels.bincount(minlength=len(counts)) for part in parts(splits))
    for k, count in enumerate(counts):
        assert abs(int(kept[k]) - count * len(every) / len(pool)) < 1
        for part, share in zip(parts(splits), shares.shares, strict=True):
            assert abs(int((part.labels == k).sum()) - share * int(kept[k])) < 1
    for part in parts(splits):
        assert part.labels.tolist() == pool.labels[numbers(part)].tolist()
    again = split(pool, None, shares, seed=seed)
    assert [numbers(part) for part in parts(again)] == [numbers(part) for part in parts(splits)]
    assert again.fingerprint == splits.fingerprint


def test_another_seed_is_another_split() -> None:
    first, second = (split(images([40, 40]), None, QUARTERS, seed=seed) for seed in (1, 2))
    assert numbers(first.train) != numbers(second.train)
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize(
    ("total", "shares", "counts"),
    [
        (10, [0.5, 0.25, 0.25], [5, 3, 2]),
        (10, [0.7, 0.2, 0.1], [7, 2, 1]),
        (5, [0.7, 0.15, 0.15], [3, 1, 1]),
        (5, [0.52, 0.08, 0.4], [2, 1, 2]),  # an empty part goes before a larger remainder
        (6, [0.8, 0.0, 0.2], [5, 0, 1]),
        (3, [1 / 3, 1 / 3, 1 / 3], [1, 1, 1]),
    ],
)
def test_apportion_by_hand(total: int, shares: list[float], counts: list[int]) -> None:
    assert apportion(total, shares) == counts


@given(st.lists(st.integers(0, 50), min_size=1, max_size=5), st.integers(1, 300), st.integers(0, 2**40))
def test_a_limit_keeps_the_balance(counts: list[int], limit: int, seed: int) -> None:
    pool = images(counts)
    if limit < len(pool) and any(count * limit < len(pool) for count in counts if count):
        return  # a class might be left empty, which is refused; see below
    kept = Limit(limit, seed).rows(pool.labels, pool.classes)
    assert kept.tolist() == sorted(set(kept.tolist())) == Limit(limit, seed).rows(pool.labels, pool.classes).tolist()
    assert len(kept) == min(limit, len(pool))
    for k, count in enumerate(counts):
        assert abs(int((pool.labels[kept] == k).sum()) - count * len(kept) / max(1, len(pool))) < 1


def test_own_test_images_are_held_back_whole() -> None:
    pool, test = images([60, 30]), images([20, 10], seed=5)
    shares = shares_of(0.5, 0.0, 0.5)
    whole = split(pool, test, shares, seed=0)
    assert whole.final_test() is test
    assert (len(whole.train), len(whole.architecture), len(whole.selection)) == (45, 0, 45)


def test_test_images_are_no_public_attribute() -> None:
    splits = split(images([8]), None, QUARTERS, seed=0)
    public = {f.name for f in fields(splits) if not f.name.startswith("_")}
    assert public == {"train", "architecture", "selection", "normalisation"}
    assert "_test" not in repr(splits)


def test_mean_and_std_are_those_of_the_train_part_alone() -> None:
    pool = images([50, 50])
    splits = split(pool, None, QUARTERS, seed=3)
    values = splits.train.pixels.double() / 255
    assert splits.mean == pytest.approx([values.mean().item()], abs=1e-12)
    assert splits.std == pytest.approx([values.std(correction=0).item()], abs=1e-12)
    assert splits.mean != pytest.approx([(pool.pixels.double() / 255).mean().item()], abs=1e-6)
    assert (splits.classes, splits.image_shape) == (("a", "b"), (1, 1, 4))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((0.5, 0.2, 0.2), "the shares must sum to 1, not 0.9"),
        ((1.5, -0.5, 0.0), "train\n  Input should be less than or equal to 1"),
        ((0.0, 0.5, 0.5), "train\n  Input should be greater than 0"),
        ((0.5, 0.5, 0.0), "selection\n  Input should be greater than 0"),
        ((float("nan"), 0.5, 0.5), "train\n  Input should be a finite number"),
    ],
)
def test_wrong_shares(shares: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        shares_of(*shares)
    assert message in str(caught.value)


def test_the_test_share_goes_to_the_other_parts_where_the_source_has_test_images() -> None:
    pool = images([40])
    fitted = split(pool, pool, shares_of(0.5, 0.1, 0.2, 0.2), seed=0)  # as in the quickstart
    assert [len(part) for part in (fitted.train, fitted.architecture, fitted.selection)] == [25, 5, 10]
    assert fitted.final_test() is pool


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.3), (0.7, 0.0, 0.3), (1 / 3, 1 / 3, 1 / 3)])
def test_what_the_message_proposes_for_missing_test_images_works(shares: tuple[float, float, float]) -> None:
    with pytest.raises(UserError) as caught:
        split(images([40]), None, shares_of(*shares), seed=0)
    assert (caught.value.where, caught.value.code) == ("data.split", "missing")
    proposed = SplitFractions(**yaml.safe_load("{" + caught.value.problem.split("{")[1]))
    assert len(split(images([40]), None, proposed, seed=0).final_test()) == 8


@given(st.lists(st.floats(0.01, 1), min_size=4, max_size=4))
def test_what_the_message_proposes_for_another_sum_is_a_sum_of_1(shares: list[float]) -> None:
    named = dict(zip(("train", "architecture", "selection", "test"), shares, strict=True))
    try:
        SplitFractions(**named)
    except ValidationError as error:
        proposed = SplitFractions(**yaml.safe_load("{" + str(error).split("proportions: {")[1].split("}")[0] + "}"))
        assert proposed.shares == pytest.approx([share / sum(shares) for share in shares], abs=0.002)


@pytest.mark.parametrize("copies", [0, 3])
def test_identical_images_in_several_parts_are_counted_and_told(copies: int, caplog: pytest.LogCaptureFixture) -> None:
    pixels = torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1).repeat(1, 1, 1, 4)
    pool = Images(pixels[:20], torch.zeros(20).long(), ("a",), "pool")
    test = Images(torch.cat([pixels[20 + copies :], pixels[:copies]]), torch.zeros(20).long(), ("a",), "test")
    with caplog.at_level("WARNING", logger="espalier"):
        split(pool, test, shares_of(0.9, 0.0, 0.1), seed=0)
    shared = count_shared(test, split(pool, test, shares_of(0.9, 0.0, 0.1), seed=0).train)
    assert [record.args[:2] for record in caplog.records][:1] == ([(shared, 20)] if copies else [])


def test_too_small_a_class_limit_or_contrast() -> None:
    with user_error("data.split", "too_few", says="'b' has 3 images"):
        split(images([40, 3]), None, QUARTERS, seed=0)
    with user_error("data.split", "too_few", says="'b' has 0 images"):
        split(images([40, 0, 40]), None, QUARTERS, seed=0)
    with user_error("data.limit", "too_few", says="2"):
        Limit(2).rows(images([40, 40, 40]).labels, "abc")
    flat = Images(torch.full((8, 1, 2, 2), 9, dtype=torch.uint8), torch.zeros(8).long(), ("a",), "flat")
    with user_error("data", "invalid", says="channel 0"):
        split(flat, None, QUARTERS, seed=0)
