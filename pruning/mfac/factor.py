"""The small Cholesky factor that M-FAC is built on, and the precision it is computed in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from espalier.nas.errors import UserError

PAGE = 4096
"""Columns whose products are summed in float32, before the sum is added in float64; also the most copied at once."""
TILE = 64
"""Rows of a tile: of symmetric products, tiles above the diagonal are skipped."""
SMALLEST_PIVOT = 1e-3
"""As a share of a row's squared length. A smaller pivot has lost three digits or more in a float32 Gram matrix."""


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Multiply float32 matrices in float32: no TF32, no bfloat16, no autocast. Restores the settings on exit."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@dataclass(frozen=True)
class Paging:
    """How a wide matrix is iterated over, page by page.

    Attributes:
        device: where its products are computed, wherever the matrix is stored.
        columns: of one page, which is copied to the device.
    """

    device: torch.device
    columns: int = PAGE

    def __call__(self, matrix: Tensor, dtype: torch.dtype | None = None) -> Iterator[tuple[slice, Tensor]]:
        """The pages of `(..., r, c)`: the slice of columns, and the page on the device."""
        for start in range(0, matrix.shape[-1], self.columns):
            at = slice(start, start + self.columns)
            yield at, matrix[..., at].to(self.device, dtype or matrix.dtype)


def gram(rows: Tensor, pages: Paging, *, columns: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """Rows rowsᵀ, `(..., r, r)` in float64, of rows `(..., r, c)`.

    Args:
        rows: on any device.
        pages: how they are iterated over.
        columns: boolean `(..., c)`, the columns to use; all if None.
        dtype: of the products; that of the rows if None.
    """
    r = rows.shape[-2]
    total = torch.zeros(*rows.shape[:-1], r, dtype=torch.float64, device=pages.device)
    for at, page in pages(rows, dtype):
        part = page if columns is None else page * columns[..., None, at]
        for i in range(0, r, TILE):
            total[..., i : i + TILE, : i + TILE] += part[..., i : i + TILE, :] @ part[..., : i + TILE, :].mT
    return total.tril() + total.tril(-1).mT


def factor(rows: Tensor, ridge: float, pages: Paging, *, columns: Tensor | None = None) -> Tensor:
    """L of L Lᵀ = ridge I + rows rowsᵀ, `(..., r, r)` in float64, of rows `(..., r, c)`.

    The Gram matrix of float32 rows is computed in float32, which is accurate enough for independent rows. It is
    computed again in float64 if the Cholesky decomposition fails, or if a row is nearly a combination of the rows
    before it, so that little of it is left.

    Args:
        rows: on any device.
        ridge: added to the diagonal.
        pages: how the rows are iterated over.
        columns: boolean `(..., c)`, the columns to use; all if None.

    Raises:
        UserError: the matrix is not positive definite in float64 either.
    """
    lower, bad = _cholesky(gram(rows, pages, columns=columns), ridge)
    if bool(bad.any()) and rows.dtype != torch.float64:
        some = None if columns is None else columns[bad]
        lower[bad], _ = _cholesky(gram(rows[bad.to(rows.device)], pages, columns=some, dtype=torch.float64), ridge)
    if not bool(lower.isfinite().all()):
        problem = "is too small for these gradients: the Fisher matrix has no inverse in float64"
        raise UserError("damp", problem, code="out_of_range")
    return lower


def _cholesky(matrix: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """The factor of ridge I + matrix (NaN if there is none), and whether its pivots are too small to be accurate."""
    matrix.diagonal(dim1=-2, dim2=-1).add_(ridge)
    lower, info = torch.linalg.cholesky_ex(matrix)
    lower = torch.where((info == 0)[..., None, None], lower, torch.nan)
    pivots = lower.diagonal(dim1=-2, dim2=-1).square() / matrix.diagonal(dim1=-2, dim2=-1)
    return lower, ~(pivots.amin(dim=-1) > SMALLEST_PIVOT)


def lower_product(lower: Tensor, matrix: Tensor) -> Tensor:
    """The product of a lower triangular `(..., r, r)` and a matrix `(..., r, c)`, skipping most of the zeros."""
    tiles = range(0, lower.shape[-1], TILE)
    return torch.cat([lower[..., i : i + TILE, : i + TILE] @ matrix[..., : i + TILE, :] for i in tiles], dim=-2)
