"""The inverse of the Fisher matrix of the last m gradients, while new ones come."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from espalier.nas.errors import UserError
from espalier.nas.training import Diverged
from espalier.pruning.mfac.factor import Paging, full_precision, gram

CANCELLED = 1e-4
"""What is left of a sum, relative to its terms, below which float32 has lost four digits of it."""


class Window:
    """F⁻¹ of F = lambda I + (1/m) Σ_i g_i g_iᵀ over the last m gradients; before there are m, the others count as 0.

    A = m lambda I + G Gᵀ, `(m, m)` in float64, is kept: a gradient changes one row and column of it, O(d m), and the
    Cholesky decomposition that each question needs is O(m³). So Frantar et al.'s dynamic algorithm (NeurIPS 2021,
    section 3.2) without its second matrix.

    Args:
        m: gradients.
        d: numbers in each.
        damp: lambda.
        dtype, device: of the gradients, m d numbers.
    """

    def __init__(
        self, m: int, d: int, damp: float, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
    ) -> None:
        self.m, self.damp = m, damp
        self.g = torch.zeros(m, d, dtype=dtype, device=device)
        self.gram = torch.zeros(m, m, dtype=torch.float64, device=device)
        self.next = 0
        """The row that the next gradient takes: the oldest."""

    def push(self, gradient: Tensor) -> None:
        """Take in a gradient `(d,)` for the oldest one."""
        self.g[self.next] = gradient
        with full_precision(self.g.device):
            products = (self.g @ self.g[self.next]).double()
        self.gram[self.next] = products
        self.gram[:, self.next] = products
        self.next = (self.next + 1) % self.m

    def newest(self) -> Tensor:
        """F⁻¹ g of the gradient taken in last, `(d,)`.

        F⁻¹ Gᵀ = m Gᵀ A⁻¹, so that it is m Gᵀ y, y the column of A⁻¹ for that gradient. Nothing is divided by lambda,
        and the gradients are gone through once.
        """
        unit = torch.zeros(self.m, 1, dtype=torch.float64, device=self.g.device)
        unit[self.next - 1] = 1
        return self._combined(self.m * self._solve(unit))

    def product(self, x: Tensor) -> Tensor:
        """F⁻¹ x = (x - Gᵀ A⁻¹ G x) / lambda of any x `(d,)`."""
        with full_precision(self.g.device):
            seen = (self.g @ x.to(self.g.dtype)).double()[:, None]
        return (x - self._combined(self._solve(seen))) / self.damp

    def _combined(self, y: Tensor) -> Tensor:
        """Gᵀ y. In float64 where the gradients are so much alike that hardly any of their sum is left."""
        with full_precision(self.g.device):
            combined = self.g.T @ y[:, 0].to(self.g.dtype)
            longest = (y[:, 0].abs() * self.gram.diagonal().sqrt()).sum()
            if self.g.dtype != torch.float64 and bool(combined.norm() < CANCELLED * longest):
                pages = Paging(self.g.device)(self.g, torch.float64)
                combined = torch.cat([page.T @ y[:, 0] for _, page in pages]).to(self.g.dtype)
        return combined

    def _solve(self, right: Tensor) -> Tensor:
        """A⁻¹ times `(m, 1)`. Where rounding has left A without a Cholesky factor, G Gᵀ is computed anew in float64.

        Raises:
            UserError: there is none then either.
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
        """All that the next gradient meets."""
        return {"g": self.g, "gram": self.gram, "next": self.next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken, on this window's device.

        Raises:
            UserError: that window had another shape.
        """
        if state["g"].shape != self.g.shape:
            here, there = tuple(self.g.shape), tuple(state["g"].shape)
            problem = f"its window of gradients has shape {there}, this optimiser's has {here}"
            raise UserError("checkpoint", problem, code="mismatch")
        self.g.copy_(state["g"])
        self.gram.copy_(state["gram"])
        self.next = state["next"]
