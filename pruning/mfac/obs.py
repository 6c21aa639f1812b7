"""Optimal Brain Surgeon with M-FAC's inverse: which weights matter least, and how the others compensate."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from espalier.nas.arguments import checked_arguments
from espalier.nas.errors import UserError
from espalier.nas.task import Batch, Task
from espalier.pruning.masks import Masks, apply_masks, zeros_in
from espalier.pruning.mfac.gradients import BATCH_SIZE, Layout, gradients
from espalier.pruning.mfac.inverse import InverseFisher
from espalier.pruning.patterns import Pattern
from espalier.pruning.pruner import Pruner
from espalier.pruning.weights import Weights

Update = Literal["joint", "singles", "none"]
ROWS = 256
"""m; the authors take 64 in their examples, and more where many weights are gone."""
DAMP = 1e-5
"""lambda, the authors'."""
NEGLIGIBLE = 0.1
"""If all eigenvalues of F are within this share of lambda, so is rho of lambda w² / 2."""
REMOVED = -1.0
"""The saliency of weights that are pruned already: below all others, so that they stay pruned."""

_log = logging.getLogger(__name__)


def saliencies(
    model: nn.Module,
    task: Task,
    batches: Iterable[Batch],
    weights: Weights,
    *,
    rows: int = ROWS,
    damp: float = DAMP,
    block: int | None = None,
    batch_size: int = BATCH_SIZE,
) -> dict[str, Tensor]:
    """The expected increase of the loss if one weight is removed and the others compensate as well as possible.

        rho_k = w_k² / (2 [F⁻¹]_kk)

    LeCun et al. (NIPS 1989), with the curvature of Hassibi & Stork (NeurIPS 1992), F = lambda I + (1/m) Σ_i g_i g_iᵀ.

    Args:
        model: the network.
        task: gives the loss.
        batches: see `gradients`.
        weights: by name.
        rows: m.
        damp: lambda.
        block: see `InverseFisher`.
        batch_size: see `gradients`.

    Returns:
        Saliencies by the weight's name and in its shape, float64 or float32, not negative.
    """
    layout = Layout(weights)
    g = gradients(model, task, batches, weights, rows, batch_size=batch_size)
    rho = saliency(layout.gather(_values(weights)), InverseFisher(g, damp, block=block).diagonal())
    return layout.scatter(rho, fill=REMOVED)


def saliency(w: Tensor, diagonal: Tensor) -> Tensor:
    """Rho = w² / (2 diag F⁻¹)."""
    return w.to(diagonal.dtype).square() / (2 * diagonal)


def updated(w: Tensor, inverse: InverseFisher, drop: Tensor, update: Update) -> Tensor:
    """The weights `(d,)` in float64, with the dropped ones 0.

    Args:
        w: the weights.
        inverse: F⁻¹.
        drop: boolean `(d,)`, True for the weights to remove.
        update: how the others change. `joint`: to the minimum of the quadratic model of the loss (see
            `InverseFisher.compensate`). `singles`: F⁻¹ t is added, t_k = -w_k / [F⁻¹]_kk at each dropped weight, the
            sum of the updates for each of them alone, as the authors do. `none`: not at all.
    """
    w = w.double()
    if update == "joint":
        return inverse.compensate(w, drop)
    if update == "singles":
        w = w + inverse.product(-w / inverse.diagonal() * drop).double()
    return w * ~drop


def curvature_ratio(g: Tensor, damp: float) -> float:
    """mean(diag(GᵀG) / m) / lambda: the gradients' part of diag F, relative to lambda.

    Times d it is the sum of the eigenvalues of GᵀG / (m lambda). If that sum is far below 1, F is lambda I and pruning
    is by magnitude. The mean alone says little: .005 may come from a few large eigenvalues.
    """
    return float(g.square().mean(dtype=torch.float64)) / damp


class MFACPruner(Pruner):
    """Prune by rho = w² / (2 [F⁻¹]_kk), some weights at a time, and let the others compensate.

    Frantar, Kurtic & Alistarh, "M-FAC: Efficient Matrix-Free Approximations of Second-Order Information", NeurIPS 2021,
    section 4. The density falls by the same factor from one computation of F to the next,

        density_j = (1 - s)^(j / n),    j = 1 ... n = visits x recomputations,

    s the sparsity of the pattern. With 0 iterations everything happens in `finalize`, without training in between.

    A visit changes weights more than a training step does. The optimiser's state is kept; the authors reset it after
    each visit.

    Args:
        weights: the weights to prune, by name; changed in place.
        pattern: how many of them are pruned, and where.
        iterations: K, over which the visits are spread evenly, starting with the first iteration, so that the network
            has K / visits steps to recover after each.
        model: the network. `weights` need not contain all of its prunable weights; the others are constants.
        task: gives the loss, see `gradients`.
        batches: for the gradients, see `gradients`.
        visits: how many times weights are removed; more than one needs iterations.
        recomputations: of F within a visit.
        rows: m, gradients for each F. A row costs a backward pass, and as much memory as the remaining weights.
        batch_size: b, images for each gradient.
        damp: lambda. It weighs b times as much against the gradients of single images.
        block: B, the number of consecutive weights in one block of F; None for all. Smaller is faster.
        update: how the remaining weights change: `joint`, `singles` or `none` (see `updated`).

    Raises:
        UserError: an option is out of range.
    """

    @checked_arguments
    def __init__(
        self,
        weights: Weights,
        pattern: Pattern,
        *,
        iterations: NonNegativeInt,
        model: nn.Module,
        task: Task,
        batches: Iterable[Batch],
        visits: PositiveInt = 1,
        recomputations: PositiveInt = 16,
        rows: PositiveInt = ROWS,
        batch_size: PositiveInt = BATCH_SIZE,
        damp: PositiveFloat = DAMP,
        block: PositiveInt | None = None,
        update: Update = "joint",
    ) -> None:
        super().__init__(weights, iterations=iterations)
        if visits > max(1, iterations):
            raise UserError("visits", f"{visits} do not fit into {iterations} iterations of pruning", code="conflict")
        self.pattern = pattern
        self.model, self.task, self.batches = model, task, batches
        self.visits, self.recomputations = visits, recomputations
        self.rows, self.batch_size, self.damp, self.block = rows, batch_size, damp, block
        self.update = update
        self.done = 0
        """Computations of F so far, including those with nothing to remove."""
        self.kept: dict[str, Tensor] = {
            name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()
        }
        self.curvature_ratios: list[float] = []
        """`curvature_ratio` of each F that was computed."""
        self._total = visits * recomputations
        self._sparsity = self._zeros(1.0) / sum(weight.numel() for weight in weights.values())

    def sparsify(self) -> None:
        visited = sum(visit * self.iterations // self.visits < self.iteration for visit in range(self.visits))
        self._advance(visited * self.recomputations)
        apply_masks(self.weights, self.kept)

    def select(self) -> dict[str, Tensor]:
        """The final masks, by the current weights and gradients."""
        if self.done == self._total:
            return self.kept
        layout = Layout(self.weights, self.kept)
        return self.pattern.select(self._scores(layout, self._inverse()), 1.0)

    @torch.no_grad()
    def finalize(self) -> Masks:
        if self.masks is None and all(bool(weight.isfinite().all()) for weight in self.weights.values()):
            self._advance(self._total)
        return super().finalize()

    def share(self, done: int) -> float:
        """The share of the pattern's zeros that exist after `done` computations of F."""
        if done == self._total or self._sparsity == 0:
            return 1.0
        return float((1 - (1 - self._sparsity) ** (done / self._total)) / self._sparsity)

    def _advance(self, done: int) -> None:
        """Remove what is due after `done` computations of F."""
        while self.done < done:
            share = self.share(self.done + 1)
            if self._zeros(share) > zeros_in(self.kept):  # small groups do not get a further zero at every share
                self._remove(share)
            self.done += 1

    def _remove(self, share: float) -> None:
        layout, inverse = Layout(self.weights, self.kept), self._inverse()
        kept = self.pattern.select(self._scores(layout, inverse), share)
        drop = ~layout.gather(kept)
        new = layout.scatter(updated(layout.gather(_values(self.weights)), inverse, drop, self.update), fill=0.0)
        for name, weight in self.weights.items():
            weight.copy_(new[name])
        self.kept = kept

    def _inverse(self) -> InverseFisher:
        """F⁻¹ of the remaining weights, at their current values."""
        g = gradients(
            self.model,
            self.task,
            self.batches,
            self.weights,
            self.rows,
            masks=self.kept,
            batch_size=self.batch_size,
        )
        self.curvature_ratios.append(curvature_ratio(g, self.damp))
        largest = self.curvature_ratios[-1] * g.shape[1]
        _log.info("mfac: of %d weights left, mean(diag GᵀG / m) is %.3g of damp", g.shape[1], self.curvature_ratios[-1])
        if largest < NEGLIGIBLE:
            _log.warning(
                "mfac: the gradients are at most %.2g of damp in any direction, so weights go by magnitude; "
                "curvature would count at a damp far below %.1g",
                largest,
                largest * self.damp,
            )
        return InverseFisher(g, self.damp, block=self.block)

    def _scores(self, layout: Layout, inverse: InverseFisher) -> dict[str, Tensor]:
        w = layout.gather(_values(self.weights))
        return layout.scatter(saliency(w, inverse.diagonal()), fill=REMOVED)

    def _zeros(self, share: float) -> int:
        """How many zeros the pattern has at a share, whatever the scores."""
        return zeros_in(
            self.pattern.select({name: weight.new_zeros(weight.shape) for name, weight in self.weights.items()}, share)
        )

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "done": self.done, "curvature_ratios": list(self.curvature_ratios)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.done = state["done"]
        self.curvature_ratios = list(state["curvature_ratios"])


def _values(weights: Weights) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in weights.items()}
