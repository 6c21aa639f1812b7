"""Exact counts: of the k smallest, with ties, in any memory format and type."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import espalier.pruning.masks
from espalier.pruning.masks import flatten, lowest, lowest_in_rows, unflatten, zeros_at, zeros_in
from espalier.pruning.patterns import Globally, Layerwise, NOfM
from user_errors import user_error


@pytest.mark.parametrize(("r", "k"), [(0.5, 50), (0.55, 55), (0.9, 90), (0.95, 95), (0.99, 99)])
def test_the_number_of_zeros(r: float, k: int) -> None:
    assert zeros_at(r, 100) == k  # ceil(.55 * 100) in binary fractions is 56


def test_the_cap_of_the_published_code_is_explicit() -> None:
    assert zeros_at(0.999, 1620) == 1619
    assert zeros_at(0.999, 1620, most=0.995) == 1611
    assert zeros_at(1.0, 1000, most=0.995) == 995


values = st.lists(st.sampled_from([0.0, -1.0, 1.0, 2.5, float("inf")]), min_size=1, max_size=40)


@given(values, st.data())
def test_the_lowest_are_exactly_those_of_a_stable_sort(scores: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(scores)))
    expected = np.zeros(len(scores), dtype=bool)
    expected[np.argsort(scores, kind="stable")[:k]] = True
    assert lowest(torch.tensor(scores), k).tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_all_types_with_many_ties(dtype: torch.dtype) -> None:
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    for k in (0, 1, 500, 999, 1000):
        assert int(lowest(scores, k).sum()) == k
        assert int(lowest(torch.zeros_like(scores), k).sum()) == k


def test_what_is_not_a_number_counts_as_highest() -> None:
    scores = torch.tensor([torch.nan, 2.0, torch.nan, 1.0])
    assert lowest(scores, 2).tolist() == [False, True, False, True]
    assert lowest(scores, 3).tolist() == [True, True, False, True]
    assert lowest(torch.tensor([3.0, torch.nan, 3.0, 1.0]), 2).tolist() == [True, False, False, True]


def test_other_devices_take_the_way_without_a_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thresholds of `topk` and `kthvalue`, which a GPU takes, choose what the partition chooses."""
    scores = torch.randint(5, (8, 31), generator=torch.Generator().manual_seed(0)).float()
    expected = {k: (lowest(scores, k), lowest_in_rows(scores, k % 31)) for k in range(249)}
    way = espalier.pruning.masks._kth
    monkeypatch.setattr(espalier.pruning.masks, "_kth", lambda rows, k: way(_Elsewhere(rows), k))
    for k, (flat, rows) in expected.items():
        assert torch.equal(lowest(scores, k), flat)
        assert torch.equal(lowest_in_rows(scores, k % 31), rows)


class _Elsewhere:
    """A tensor that says it is not on the CPU."""

    is_cpu = False

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __getattr__(self, name: str) -> object:
        return getattr(self._tensor, name)

    def __len__(self) -> int:
        return len(self._tensor)


def test_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot choose 5 of 4"):
        lowest(torch.zeros(4), 5)


def test_masks_lie_in_memory_as_the_weights_do() -> None:
    plain = torch.randn(6, 5, 3, 3)
    last = plain.to(memory_format=torch.channels_last)
    assert flatten(last).data_ptr() == last.data_ptr()
    assert torch.equal(unflatten(flatten(last), last), plain)
    for mask in (lowest(last, 100), Globally(100).select({"w": last})["w"], NOfM(1, 5).select({"w": last})["w"]):
        assert mask.stride() == last.stride()
    assert torch.equal(lowest(last, 100), lowest(plain, 100))  # where no two are equal


@pytest.mark.parametrize(("n", "m", "kept"), [(19, 20, 540), (9, 10, 1080), (89, 90, 120)])
def test_n_of_m_keeps_the_highest_of_each_group(n: int, m: int, kept: int) -> None:
    """SwinIR-light's projections of 60 x 180 = 10,800 weights, in the patterns of the published commands."""
    scores = torch.rand(60, 180, generator=torch.Generator().manual_seed(0))
    mask = NOfM(n, m).select({"w": scores})["w"]
    assert int(mask.sum()) == kept
    groups, chosen = scores.reshape(-1, m), mask.reshape(-1, m)
    lowest_kept = groups.masked_fill(~chosen, torch.inf).amin(dim=1)
    assert (lowest_kept >= groups.masked_fill(chosen, -torch.inf).amax(dim=1)).all()
    assert zeros_in({"w": mask}) / 10_800 == pytest.approx(n / m)  # 89:90 is .98889, not .99


def test_n_of_m_runs_along_the_inputs() -> None:
    scores = torch.arange(2 * 4 * 1 * 2).view(2, 4, 1, 2).float()
    kept = NOfM(2, 4).select({"w": scores})["w"]
    assert kept[:, :, 0, 0].tolist() == [[False, False, True, True]] * 2
    assert NOfM(2, 4).select({"w": scores}, share=0.5)["w"].sum() == 12


def test_groups_that_do_not_divide_are_refused() -> None:
    with user_error("conv.weight", "mismatch", says="6"):
        NOfM(2, 4).select({"conv.weight": torch.zeros(8, 6, 3, 3)})
    with user_error("pattern", "out_of_range", says="4:4"):
        NOfM(4, 4)


def test_layerwise_wants_a_number_for_each_weight() -> None:
    with user_error("b", "missing"):
        Layerwise({"a": 2}).select({"a": torch.zeros(4), "b": torch.zeros(4)})
    with user_error("a", "out_of_range", says="5"):
        Layerwise({"a": 5}).select({"a": torch.zeros(4)})


def test_globally_spares_the_highest_of_each_layer() -> None:
    scores = {"small": torch.tensor([0.1, 0.2, 0.3]), "large": torch.tensor([5.0, 6.0, 7.0, 8.0])}
    kept = Globally(4).select(scores)
    assert kept["small"].tolist() == [False, False, True]
    assert kept["large"].tolist() == [False, False, True, True]
    kept = Globally(2, least_density=0.6).select(scores)  # 2 of 3 and 3 of 4 stay
    assert kept["small"].tolist() == [False, True, True]
    assert kept["large"].tolist() == [False, True, True, True]
    with user_error("pattern", "infeasible", says="at most 5 of 7"):
        Globally(6).select(scores)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.floats(0, 1), st.integers(0, 2**31))
def test_a_share_of_the_zeros_is_exact(sizes: list[int], share: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = {str(i): torch.randint(3, (n,), generator=generator).float() for i, n in enumerate(sizes)}
    zeros = sum(sizes) - len(sizes)
    assert zeros_in(Globally(zeros).select(scores, share)) == round(share * zeros)
    each = Layerwise({str(i): n for i, n in enumerate(sizes)}).select(scores, share)
    assert [int((~each[str(i)]).sum()) for i in range(len(sizes))] == [round(share * n) for n in sizes]
