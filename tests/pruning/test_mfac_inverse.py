"""The inverse of the empirical Fisher matrix: against the matrix itself, and in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from espalier.pruning.mfac.factor import Paging, factor, full_precision, gram
from espalier.pruning.mfac.inverse import InverseFisher
from user_errors import user_error

DAMPS = (1e-1, 1e-3, 1e-5)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def fisher(g: Tensor, damp: float) -> Tensor:
    """F = lambda I + (1/m) Σ_i g_i g_iᵀ, in float64."""
    g = g.double()
    return damp * torch.eye(g.shape[1], dtype=torch.float64) + g.T @ g / len(g)


def error(value: Tensor, exact: Tensor) -> float:
    """Largest difference, relative to the largest entry."""
    return float((value.double() - exact).abs().max() / exact.abs().max())


def recursion(g: Tensor, damp: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """F⁻¹ x and diag F⁻¹ by the published recursion: v_i = g_i / lambda - Σ_j<i (v_jᵀ g_i / den_j) v_j."""
    v, denominators = torch.empty_like(g), g.new_empty(len(g))
    for i in range(len(g)):
        v[i] = g[i] / damp - (v[:i] @ g[i] / denominators[:i]) @ v[:i]
        denominators[i] = len(g) + g[i] @ v[i]
    return x / damp - (v @ x / denominators) @ v, 1 / damp - (v.square() / denominators[:, None]).sum(0)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("damp", DAMPS)
def test_products_and_diagonal_are_those_of_the_dense_inverse(damp: float, dtype: torch.dtype, most: float) -> None:
    g, x = normal(32, 200, dtype=dtype), normal(200, seed=1, dtype=dtype)
    exact = torch.linalg.inv(fisher(g, damp))
    inverse = InverseFisher(g, damp)
    assert error(inverse.product(x), exact @ x.double()) < most
    assert error(inverse.diagonal(), exact.diagonal()) < most
    rows = torch.tensor([3, 150, 7, 199])
    assert error(inverse.entries(rows), exact[rows][:, rows]) < most


@pytest.mark.parametrize("damp", DAMPS)
def test_the_published_recursion_gives_the_same(damp: float) -> None:
    g, x = normal(32, 200), normal(200, seed=1)
    inverse = InverseFisher(g, damp)
    product, diagonal = recursion(g, damp, x)
    assert error(inverse.product(x), product) < 1e-10
    assert error(inverse.diagonal(), diagonal) < 1e-10


def test_of_one_gradient() -> None:
    """(x - g (gᵀx) / (lambda + |g|²)) / lambda, by Sherman and Morrison."""
    g, x, damp = normal(1, 50), normal(50, seed=1), 1e-3
    exact = (x - g[0] * (g[0] @ x) / (damp + g[0] @ g[0])) / damp
    torch.testing.assert_close(InverseFisher(g, damp).product(x), exact, rtol=1e-12, atol=1e-9)


def test_of_zero_gradients_is_a_division() -> None:
    x, damp = normal(60), 1e-5
    for block in (None, 7, 20):
        inverse = InverseFisher(torch.zeros(16, 60, dtype=torch.float64), damp, block=block)
        torch.testing.assert_close(inverse.product(x), x / damp, rtol=1e-14, atol=0)
        torch.testing.assert_close(inverse.diagonal(), torch.full_like(x, 1 / damp), rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [None, 8, 50])
def test_is_symmetric_and_positive_with_a_bounded_diagonal(block: int | None, dtype: torch.dtype) -> None:
    g, x, y, damp = normal(16, 100, dtype=dtype), normal(100, seed=1), normal(100, seed=2), 1e-4
    inverse = InverseFisher(g, damp, block=block)
    there, back = float(inverse.product(x).double() @ y), float(inverse.product(y).double() @ x)
    assert there == pytest.approx(back, rel=1e-5 if dtype == torch.float32 else 1e-12)
    assert float(inverse.product(x).double() @ x) > 0
    diagonal = inverse.diagonal()
    assert bool((diagonal >= 1 / (damp + g.square().mean(0))).all())  # [F⁻¹]_kk >= 1 / F_kk
    assert bool((diagonal <= torch.tensor(1 / damp, dtype=dtype)).all())


def test_the_order_of_gradients_does_not_matter() -> None:
    g, x = normal(16, 60), normal(60, seed=1)
    shuffled = g[torch.randperm(16, generator=torch.Generator().manual_seed(2))]
    one, other = InverseFisher(g, 1e-3), InverseFisher(shuffled, 1e-3)
    assert error(one.product(x), other.product(x)) < 1e-12
    assert error(one.diagonal(), other.diagonal()) < 1e-12


def test_one_block_of_all_weights_is_the_whole_matrix() -> None:
    g, x = normal(16, 60), normal(60, seed=1)
    for block in (60, 1000):
        assert error(InverseFisher(g, 1e-3, block=block).product(x), InverseFisher(g, 1e-3).product(x)) < 1e-12


@pytest.mark.parametrize(("d", "block"), [(1001, 128), (1001, 20), (1001, 1), (300, 100), (130, 129)])
def test_blocks_are_inverted_each_for_itself(d: int, block: int) -> None:
    """With a smaller block at the end; more gradients than weights in a block, and fewer."""
    g, x, damp = normal(32, d), normal(d, seed=1), 1e-3
    inverse = InverseFisher(g, damp, block=block)
    blocks = list(zip(g.split(block, dim=1), x.split(block), strict=True))
    dense = [torch.linalg.inv(fisher(part, damp)) for part, _ in blocks]
    assert error(inverse.product(x), torch.cat([f @ y for f, (_, y) in zip(dense, blocks, strict=True)])) < 1e-10
    assert error(inverse.diagonal(), torch.cat([f.diagonal() for f in dense])) < 1e-10
    rows = torch.tensor([d - 1, 0, block, block - 1])
    assert error(inverse.entries(rows), torch.block_diag(*dense)[rows][:, rows]) < 1e-10


@pytest.mark.parametrize("block", [None, 128, 20])
def test_pages_change_nothing(block: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    g, x = normal(32, 1001), normal(1001, seed=1)
    drop = torch.rand(1001, generator=torch.Generator().manual_seed(2)) < 0.3
    whole = InverseFisher(g, 1e-3, block=block)
    monkeypatch.setattr("espalier.pruning.mfac.inverse.TOGETHER", 256)
    paged = InverseFisher(g, 1e-3, block=block, page=37)
    assert len(paged.parts) >= len(whole.parts)
    assert error(paged.product(x), whole.product(x)) < 1e-12
    assert error(paged.diagonal(), whole.diagonal()) < 1e-12
    assert error(paged.compensate(x, drop), whole.compensate(x, drop)) < 1e-12


def test_few_weights_have_an_exact_diagonal_in_float32() -> None:
    """(1 - Σ_i u_ik²) / lambda could not have it: one rounding of the 1 is ten times the error allowed here."""
    g, damp = normal(64, 16, dtype=torch.float32), 1e-5
    exact = torch.linalg.inv(fisher(g, damp)).diagonal()
    assert torch.finfo(torch.float32).eps > 1e-3 * float((damp * exact).max())
    diagonal = InverseFisher(g, damp).diagonal().double()
    assert float(((diagonal - exact) / exact).abs().max()) < 1e-4


def test_nearly_equal_gradients_are_multiplied_in_float64() -> None:
    """One rounding of an entry of G Gᵀ in float32 is more than a percent of the smallest pivot."""
    g, ridge = (normal(1, 800) + 1e-3 * normal(64, 800, seed=1)).float(), 6.4e-4
    matrix = ridge * torch.eye(64, dtype=torch.float64) + g.double() @ g.double().T
    exact = torch.linalg.cholesky(matrix)
    assert torch.finfo(torch.float32).eps * float(matrix.max()) > 1e-2 * float(exact.diagonal().square().min())
    assert error(factor(g, ridge, Paging(g.device)), exact) < 1e-9

    diagonal, dense = InverseFisher(g, 1e-5).diagonal().double(), torch.linalg.inv(fisher(g, 1e-5)).diagonal()
    assert float(((diagonal - dense) / dense).abs().max()) < 1e-4


def test_one_block_in_need_of_float64_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    good = normal(8, 32, dtype=torch.float32)
    poor = (normal(1, 32, seed=1) + 1e-4 * normal(8, 32, seed=2)).float()
    in_float64: list[Tensor] = []

    def noted(rows: Tensor, pages: Paging, **options: Any) -> Tensor:
        if options.get("dtype") == torch.float64:
            in_float64.append(rows)
        return gram(rows, pages, **options)

    monkeypatch.setattr("espalier.pruning.mfac.factor.gram", noted)
    both = InverseFisher(torch.cat([good, poor], dim=1), 1e-4, block=32).diagonal()
    assert [rows.tolist() for rows in in_float64] == [poor[None].tolist()]
    for part, g, most in ((both[:32], good, 1e-5), (both[32:], poor, 1e-4)):
        exact = torch.linalg.inv(fisher(g, 1e-4)).diagonal()
        assert float(((part.double() - exact) / exact).abs().max()) < most


def test_a_dampening_that_is_lost_in_rounding_is_the_users() -> None:
    g = normal(1, 50).repeat(8, 1)
    with user_error("damp", "out_of_range"):
        InverseFisher(g, 1e-25)
    with pytest.raises(ValueError, match="damp must be above 0"):
        InverseFisher(g, 0.0)


def test_gram_of_the_columns_that_count() -> None:
    rows = normal(3, 70, 9)
    columns = torch.rand(3, 9, generator=torch.Generator().manual_seed(1)) < 0.5
    exact = (rows * columns[:, None]) @ (rows * columns[:, None]).mT
    torch.testing.assert_close(gram(rows, Paging(rows.device, 4), columns=columns), exact, rtol=1e-12, atol=1e-12)


def test_precision_is_full_within_and_as_before_afterwards() -> None:
    g, x = normal(8, 64, dtype=torch.float32), normal(64, seed=1, dtype=torch.float32)
    exact = InverseFisher(g, 1e-3).product(x)
    torch.set_float32_matmul_precision("high")
    try:
        with full_precision(g.device):
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert error(InverseFisher(g, 1e-3).product(x), exact.double()) < 1e-5
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")
