"""The inverse of the empirical Fisher matrix of many weights, whole or in blocks along its diagonal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from espalier.pruning.mfac.blocks import Blocks, Narrow, Wide
from espalier.pruning.mfac.factor import PAGE, Paging, full_precision

TOGETHER = 2**16
"""Weights of the blocks that are processed together."""


class InverseFisher:
    """Products with F⁻¹, F = lambda I + (1/m) Σ_i g_i g_iᵀ; F itself, `(d, d)`, is never formed.

    The cost is one product G Gᵀ, O(d m²), and O(d m) for each F⁻¹ x. With blocks of B weights the former falls to
    O(d m min(m, B)). Equal to Frantar et al.'s recursion over the gradients (NeurIPS 2021, section 3), which
    needs as many operations, one row at a time.

    Args:
        gradients: G, `(m, d)`, float32 or float64; referenced, not copied.
        damp: lambda, above 0.
        block: B, the number of consecutive weights that form one block; all d if None. The last block may be smaller.
        device: where to compute, by default where the gradients are. The gradients need not fit there: one page of
            columns at a time is copied.
        page: columns of one page.
    """

    def __init__(
        self,
        gradients: Tensor,
        damp: float,
        *,
        block: int | None = None,
        device: torch.device | None = None,
        page: int = PAGE,
    ) -> None:
        if damp <= 0:
            raise ValueError(f"damp must be above 0, not {damp}")
        self.m, self.d = gradients.shape
        self.damp = damp
        self.dtype = gradients.dtype
        self.device = device or gradients.device
        pages = Paging(self.device, page)
        with full_precision(self.device):
            self.parts = [_blocks(g, damp, pages) for g in _parts(gradients, min(block or self.d, self.d))]

    def product(self, x: Tensor) -> Tensor:
        """F⁻¹ x, `(d,)`, in the precision of the gradients."""
        return self._each(lambda blocks, x: blocks.product(x), x.to(self.dtype))

    def diagonal(self) -> Tensor:
        """Diag F⁻¹, `(d,)`, in (0, 1 / lambda]."""
        return self._each(lambda blocks: blocks.diagonal())

    def compensate(self, w: Tensor, drop: Tensor) -> Tensor:
        """The weights `(d,)` with those at P set to 0 and the others updated so that the loss grows least.

            w - F⁻¹_:P (F⁻¹_PP)⁻¹ w_P

        Hassibi & Stork's Optimal Brain Surgeon (NeurIPS 1992), for all dropped weights jointly.

        Args:
            w: the weights.
            drop: boolean `(d,)`, True at P.

        Returns:
            float64.
        """
        return self._each(lambda blocks, w, drop: blocks.compensate(w, drop), w.double(), drop)

    def entries(self, rows: Tensor) -> Tensor:
        """[F⁻¹]_PP, P the indices `rows`: `(|P|, |P|)` in float64, 0 between blocks."""
        result = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=self.device)
        first = 0
        with full_precision(self.device):
            for blocks in self.parts:
                n, _, size = blocks.g.shape
                for index in range(n):
                    here = ((rows >= first) & (rows < first + size)).nonzero()[:, 0]
                    if len(here):
                        result[here[:, None], here] = blocks.entries(index, rows[here] - first)
                    first += size
        return result

    def _each(self, work: Callable[..., Tensor], *vectors: Tensor) -> Tensor:
        """The results of `work(blocks, *parts of the vectors)` for all blocks, concatenated."""
        results, first = [], 0
        with full_precision(self.device):
            for blocks in self.parts:
                n, _, size = blocks.g.shape
                parts = [vector[first : first + n * size].view(n, size) for vector in vectors]
                results.append(work(blocks, *parts).reshape(-1))
                first += n * size
        return torch.cat(results)


def _parts(gradients: Tensor, size: int) -> Iterator[Tensor]:
    """Gradients `(n, m, B)` of n blocks of `size` weights at a time; the remainder is a smaller block."""
    d = gradients.shape[1]
    together = max(1, TOGETHER // size) * size
    whole = d - d % size
    for start in range(0, whole, together):
        yield gradients[:, start : min(start + together, whole)].unflatten(1, (-1, size)).movedim(1, 0)
    if whole < d:
        yield gradients[None, :, whole:]


def _blocks(g: Tensor, damp: float, pages: Paging) -> Blocks:
    return Wide(g, damp, pages) if g.shape[1] < g.shape[2] else Narrow(g, damp, pages)
