"""Equal blocks of the Fisher matrix, inverted together: in the space of gradients or of weights, whichever is smaller.

All tensors of weights have the shape `(n, B)`, n blocks of B weights; gradients g are `(n, m, B)`. The matrix of a
block is F = lambda I + (1/m) Σ_i g_i g_iᵀ, `(B, B)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from espalier.pruning.mfac.factor import Paging, factor, lower_product


class Blocks(ABC):
    """Products with F⁻¹ of n blocks.

    Args:
        g: gradients `(n, m, B)`, on any device; referenced, not copied.
        damp: lambda, above 0.
        pages: how the gradients are iterated over. All other tensors are on its device.
    """

    def __init__(self, g: Tensor, damp: float, pages: Paging) -> None:
        self.g = g
        self.damp = damp
        self.pages = pages
        self.m = g.shape[-2]
        self.lower = self._factor(None)

    @abstractmethod
    def _factor(self, keep: Tensor | None) -> Tensor:
        """The Cholesky factor L of the smaller side in float64, with the weights in `keep` `(n, B)`, or with all."""

    @abstractmethod
    def product(self, x: Tensor) -> Tensor:
        """F⁻¹ x."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """Diag F⁻¹, clipped to its exact bounds [1 / diag F, 1 / lambda], which rounding could exceed."""

    @abstractmethod
    def entries(self, block: int, rows: Tensor) -> Tensor:
        """[F⁻¹]_PP of one block, P its `rows`: `(|P|, |P|)` in float64."""

    @abstractmethod
    def compensate(self, w: Tensor, drop: Tensor) -> Tensor:
        """W - F⁻¹_:P (F⁻¹_PP)⁻¹ w_P: of all weights that are 0 at P, those that minimise δᵀFδ/2.

        In terms of the weights Q that stay this is exactly w_Q + (F_QQ)⁻¹ F_QP w_P: the effect of the lost weights on
        the gradients, G_P w_P, is fitted by those that stay. That is a ridge regression, without a small difference
        of large numbers.

        Args:
            w: float64.
            drop: boolean, true at P.
        """


class Wide(Blocks):
    """Blocks with m < B, by Woodbury's identity.

    With A = m lambda I + G Gᵀ = L Lᵀ and U = L⁻¹ G,

    F⁻¹ x = (x - Gᵀ A⁻¹ G x) / lambda,     [F⁻¹]_PP = (I - U_Pᵀ U_P) / lambda,     diag = (1 - Σ_i U_ik²) / lambda.

    An entry of the diagonal has a relative error of about 1e-7 / (1 - Σ_i U_ik²) in float32.
    """

    def _factor(self, keep: Tensor | None) -> Tensor:
        return factor(self.g, self.m * self.damp, self.pages, columns=keep)

    def product(self, x: Tensor) -> Tensor:
        y = torch.cholesky_solve(self._project(x), self.lower).to(x.dtype)
        return torch.cat([x[:, at] - (g.mT @ y)[..., 0] for at, g in self.pages(self.g)], dim=-1) / self.damp

    def diagonal(self) -> Tensor:
        identity = torch.eye(self.m, dtype=torch.float64, device=self.pages.device)
        # An explicit inverse: solving for many columns is slower, and no more accurate since L was computed from A.
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
        # Fewer weights than gradients may stay. Then y is large and the sum below cancels: it needs float64.
        y = torch.cholesky_solve(self._project(w * drop), self._factor(~drop))
        change = torch.cat([(g.mT @ y)[..., 0] for _, g in self.pages(self.g, torch.float64)], dim=-1)
        return (w + change) * ~drop

    def _project(self, x: Tensor) -> Tensor:
        """G x, `(n, m, 1)` in float64, summed over pages; products are in the precision of x."""
        projected = torch.zeros(len(x), self.m, 1, dtype=torch.float64, device=self.pages.device)
        for at, g in self.pages(self.g, x.dtype):
            projected += g @ x[:, at, None]
        return projected


class Narrow(Blocks):
    """Blocks with B ≤ m: m F = m lambda I + Gᵀ G = L Lᵀ itself is the smaller matrix, and free of cancellation."""

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
        projected = g.mT @ (g @ (w * drop)[..., None])
        change = torch.cholesky_solve(projected * ~drop[..., None], self._factor(~drop))[..., 0]
        return (w + change) * ~drop


def _bounded(diagonal: Tensor, g: Tensor, damp: float) -> Tensor:
    """Diag F⁻¹ clipped to its bounds 1 / F_kk = 1 / (lambda + Σ_i g_ik² / m) and 1 / lambda."""
    least = 1 / (damp + g.square().mean(dim=-2))
    return torch.maximum(diagonal, least).clamp(max=1 / damp)
