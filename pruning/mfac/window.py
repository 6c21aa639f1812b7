"""The inverse of the Fisher matrix of the last m gradients, updated as new ones arrive."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from espalier.nas.errors import UserError
from espalier.nas.training import Diverged
from espalier.pruning.mfac.factor import Paging, full_precision, gram

CANCELLED = 1e-4
"""Length of a sum relative to its terms, below which float32 has lost four digits."""


class Window:
    """F⁻¹ of F = lambda I + (1/m) Σ_i g_i g_iᵀ over the last m gradients; missing ones count as 0 at first.

    A = m lambda I + G Gᵀ, `(m, m)` in float64, is kept up to date: a gradient changes one row and column, O(d m), and
    each product needs a Cholesky decomposition, O(m³). This is Frantar et al.'s dynamic algorithm (NeurIPS 2021,
    section 3.2) without its second matrix.

    Args:
        m: number of gradients.
        d: length of each.
        damp: lambda.
        dtype: of the gradients.
        device: of the gradients, m d numbers.
    """

    def __init__(
        self, m: int, d: int, damp: float, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
    ) -> None:
        self.m, self.damp = m, damp
        self.g = torch.zeros(m, d, dtype=dtype, device=device)
        self.gram = torch.zeros(m, m, dtype=torch.float64, device=device)
        self.next = 0
        """The row that the next gradient replaces: the oldest."""

    def push(self, gradient: Tensor) -> None:
        """Replace the oldest gradient by a new one, `(d,)`."""
        self.g[self.next] = gradient
        with full_precision(self.g.device):
            products = (self.g @ self.g[self.next]).double()
        self.gram[self.next] = products
        self.gram[:, self.next] = products
        self.next = (self.next + 1) % self.m

    def newest(self) -> Tensor:
        """F⁻¹ g of the newest gradient, `(d,)`.

        Since F⁻¹ Gᵀ = m Gᵀ A⁻¹, this is m Gᵀ y, y the column of A⁻¹ for that gradient. Nothing is divided by lambda,
        and the gradients are read only once.
        """
        unit = torch.zeros(self.m, 1, dtype=torch.float64, device=self.g.device)
        unit[self.next - 1] = 1
        return self._combined(self.m * self._solve(unit))

    def product(self, x: Tensor) -> Tensor:
        """F⁻¹ x = (x - Gᵀ A⁻¹ G x) / lambda of any x `(d,)`."""
        with full_precision(self.g.device):
            projected = (self.g @ x.to(self.g.dtype)).double()[:, None]
        return (x - self._combined(self._solve(projected))) / self.damp

    def _combined(self, y: Tensor) -> Tensor:
        """Gᵀ y; in float64 if the gradients are so similar that their weighted sum nearly cancels."""
        with full_precision(self.g.device):
            combined = self.g.T @ y[:, 0].to(self.g.dtype)
            longest = (y[:, 0].abs() * self.gram.diagonal().sqrt()).sum()
            if self.g.dtype != torch.float64 and bool(combined.norm() < CANCELLED * longest):
                pages = Paging(self.g.device)(self.g, torch.float64)
                combined = torch.cat([page.T @ y[:, 0] for _, page in pages]).to(self.g.dtype)
        return combined

    def _solve(self, right: Tensor) -> Tensor:
        """A⁻¹ times `(m, 1)`. If A has no Cholesky factor because of rounding, G Gᵀ is recomputed in float64.

        Raises:
            UserError: A still has no factor.
            Diverged: a gradient is not finite.
        """
        ridge = self.m * self.damp * torch.eye(self.m, dtype=torch.float64, device=self.g.device)
        lower, info = torch.linalg.cholesky_ex(ridge + self.gram)
        if int(info):
            self.gram = gram(self.g, Paging(self.g.device), dtype=torch.float64)
            lower, info = torch.linalg.cholesky_ex(ridge + self.gram)
            if not bool(self.gram.isfinite().all()):
                raise Diverged("a gradient of the last steps is not finite; a smaller learning rate may help")
        if int(info):
            problem = "is too small for these gradients: the Fisher matrix has no inverse in float64"
            raise UserError("damp", problem, code="out_of_range")
        return torch.cholesky_solve(right, lower)

    def state_dict(self) -> dict[str, Any]:
        """The gradients, their Gram matrix and the position of the oldest."""
        return {"g": self.g, "gram": self.gram, "next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`, on this window's device.

        Raises:
            UserError: the state is of a window of another shape.
        """
        if state["g"].shape != self.g.shape:
            here, there = tuple(self.g.shape), tuple(state["g"].shape)
            problem = f"its window of gradients has shape {there}, this optimiser's has {here}"
            raise UserError("checkpoint", problem, code="mismatch")
        self.g.copy_(state["g"])
        self.gram.copy_(state["gram"])
        self.next = state["next"]
