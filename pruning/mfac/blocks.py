"""Equal blocks of the Fisher matrix, many at once: two ways to invert them, by which side is shorter.

All tensors of weights have the shape `(n, B)`, n blocks of B weights; gradients g are `(n, m, B)`. The matrix of a
block is F = lambda I + (1/m) Σ_i g_i g_iᵀ, `(B, B)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from espalier.pruning.mfac.factor import Paging, factor, lower_product


class Blocks(ABC):
    """F⁻¹ of n blocks, by its products.

    Args:
        g: gradients `(n, m, B)`, on any device; kept, not copied.
        damp: lambda, above 0.
        pages: how they are gone through. All other tensors are on its device.
    """

    def __init__(self, g: Tensor, damp: float, pages: Paging) -> None:
        self.g = g
        self.damp = damp
        self.pages = pages
        self.m = g.shape[-2]
        self.lower = self._factor(None)

    @abstractmethod
    def _factor(self, keep: Tensor | None) -> Tensor:
        """L of the shorter side, float64, with only the weights to keep `(n, B)`, or with all."""

    @abstractmethod
    def product(self, x: Tensor) -> Tensor:
        """F⁻¹ x."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """Diag F⁻¹, in [1 / diag F, 1 / lambda]: its exact bounds, which rounding could leave."""

    @abstractmethod
    def entries(self, block: int, rows: Tensor) -> Tensor:
        """[F⁻¹]_PP of one block, P its `rows`: `(|P|, |P|)` in float64."""

    @abstractmethod
    def compensate(self, w: Tensor, drop: Tensor) -> Tensor:
        """W - F⁻¹_:P (F⁻¹_PP)⁻¹ w_P: of all weights that are 0 at P the ones where δᵀFδ/2 is smallest.

        In terms of the weights Q that stay, and exactly the same: w_Q + (F_QQ)⁻¹ F_QP w_P. So what the gradients see
        of the lost weights, G_P w_P, is fitted by those that stay, a ridge regression without a small difference of
        large numbers.

        Args:
            w: float64.
            drop: boolean, true at P.
        """


class Wide(Blocks):
    """m < B. With A = m lambda I + G Gᵀ = L Lᵀ and U = L⁻¹ G (Woodbury's identity):

    F⁻¹ x = (x - Gᵀ A⁻¹ G x) / lambda,     [F⁻¹]_PP = (I - U_Pᵀ U_P) / lambda,     diag = (1 - Σ_i U_ik²) / lambda.

    An entry of the diagonal has a relative error of about 1e-7 / (1 - Σ_i U_ik²) in float32.
    """

    def _factor(self, keep: Tensor | None) -> Tensor:
        return factor(self.g, self.m * self.damp, self.pages, columns=keep)

    def product(self, x: Tensor) -> Tensor:
        y = torch.cholesky_solve(self._seen(x), self.lower).to(x.dtype)
        return torch.cat([x[:, at] - (g.mT @ y)[..., 0] for at, g in self.pages(self.g)], dim=-1) / self.damp

    def diagonal(self) -> Tensor:
        identity = torch.eye(self.m, dtype=torch.float64, device=self.pages.device)
        # An explicit inverse, as solving for many columns is slow: no less accurate, where L itself comes from A.
        inverse = torch.linalg.solve_triangular(self.lower, identity, upper=False).to(self.g.dtype)
        parts = []
        for _, g in self.pages(self.g):
            u = lower_product(inverse, g)
            parts.append(_bounded((1 - u.square().sum(-2)) / self.damp, g, self.damp))
        return torch.cat(parts, dim=-1)

    def entries(self, block: int, rows: Tensor) -> Tensor:
        g = self.g[block][:, rows.to(self.g.device)].to(self.lower)
        u = torch.linalg.solve_triangular(self.lower[block], g, upper=False)
        return (torch.eye(len(rows)).to(u) - u.mT @ u) / self.damp

    def compensate(self, w: Tensor, drop: Tensor) -> Tensor:
        # Fewer weights than gradients may stay; then y is large, and only float64 cancels it.
        y = torch.cholesky_solve(self._seen(w * drop), self._factor(~drop))
        change = torch.cat([(g.mT @ y)[..., 0] for _, g in self.pages(self.g, torch.float64)], dim=-1)
        return (w + change) * ~drop

    def _seen(self, x: Tensor) -> Tensor:
        """G x, `(n, m, 1)` in float64, from products in the precision of x."""
        seen = torch.zeros(len(x), self.m, 1, dtype=torch.float64, device=self.pages.device)
        for at, g in self.pages(self.g, x.dtype):
            seen += g @ x[:, at, None]
        return seen


class Narrow(Blocks):
    """B ≤ m: the matrix itself, m F = m lambda I + Gᵀ G = L Lᵀ, is the smaller one, and free of cancellation."""

    def __init__(self, g: Tensor, damp: float, pages: Paging) -> None:
        super().__init__(g, damp, pages)
        self.inverse = (self.m * torch.cholesky_inverse(self.lower)).to(g.dtype)

    def _factor(self, keep: Tensor | None) -> Tensor:
        g = self.g.to(self.pages.device)
        return factor((g if keep is None else g * keep[:, None]).mT, self.m * self.damp, self.pages)

    def product(self, x: Tensor) -> Tensor:
        return (self.inverse @ x[..., None])[..., 0]

    def diagonal(self) -> Tensor:
        return _bounded(self.inverse.diagonal(dim1=-2, dim2=-1), self.g.to(self.pages.device), self.damp)

    def entries(self, block: int, rows: Tensor) -> Tensor:
        return self.m * torch.cholesky_inverse(self.lower[block])[rows][:, rows]

    def compensate(self, w: Tensor, drop: Tensor) -> Tensor:
        g = self.g.to(self.pages.device, torch.float64)
        seen = g.mT @ (g @ (w * drop)[..., None])
        change = torch.cholesky_solve(seen * ~drop[..., None], self._factor(~drop))[..., 0]
        return (w + change) * ~drop


def _bounded(diagonal: Tensor, g: Tensor, damp: float) -> Tensor:
    """Diag F⁻¹ within 1 / F_kk = 1 / (lambda + Σ_i g_ik² / m), which it is never below, and 1 / lambda."""
    least = 1 / (damp + g.square().mean(dim=-2))
    return torch.maximum(diagonal, least).clamp(max=1 / damp)
