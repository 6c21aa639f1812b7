"""Importance sampling of training images: images with large gradients are shown more often.

Katharopoulos & Fleuret, "Not All Samples Are Created Equal: Deep Learning with Importance Sampling", ICML 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from espalier.nas.errors import UserError

Draws = Literal["multinomial", "systematic"]
Average = Literal["half", "mean"]


@dataclass(frozen=True)
class Coverage:
    """The variety of the images that an epoch showed.

    Attributes:
        unique: number of different images as a share of all images.
        effective: (sum w)^2 / (n sum w^2) of the importance weights w of the n drawn images; 1 if all are equal.
    """

    unique: float
    effective: float


class ImportanceSampler:
    """Decides which images `Batches` shows, by the scores of the images shown before.

        q_i = tau h_i / sum_j h_j + (1 - tau) / N

    with h_i the score of image i. With the importance weights w_i = 1 / (N q_i), the mean of w_i L_i over the drawn
    images is an unbiased estimate of the mean loss over all N images.

    In each epoch: set `tau`; `draw` decides the order; call `observe` once for each batch in turn; `end_epoch` turns
    the observations into scores. Until then they stay on their device. Before there are any scores, an epoch shows
    every image once.

    Args:
        draws: `multinomial` draws independently. `systematic` shows image i either floor(n q_i) or ceil(n q_i) times
            (Kish, "Survey Sampling", 1965, section 4.1), so every image once if q is uniform.
        average: how several observations of one image in an epoch are combined: `mean`, or `half` for the running
            average h <- (h + e) / 2.
        carry: whether an image that was not shown in an epoch keeps its score; else its score becomes 0.

    Attributes:
        tau: the weight of the scores in q, in [0, 1]; 0 is uniform sampling.
        scores: float64 (N,) on the CPU, nan for images that were never shown; None before the end of the first epoch.
    """

    def __init__(self, *, draws: Draws = "systematic", average: Average = "mean", carry: bool = True) -> None:
        self.tau = 0.0
        self.scores: Tensor | None = None
        self._draws, self._average, self._carry = draws, average, carry
        self._order = torch.empty(0, dtype=torch.int64)
        self._weights: Tensor | None = None
        self._observed: list[Tensor] = []
        self._seen = 0
        self._images = 0

    def probabilities(self, images: int) -> Tensor | None:
        """The sampling probabilities q. Images without a score count as the mean of the others.

        Args:
            images: N.

        Returns:
            float64 `(images,)`; None if q is uniform.

        Raises:
            UserError: the scores are of another number of images.
        """
        if self.scores is not None and len(self.scores) != images:
            raise UserError(
                "checkpoint.scores",
                f"belongs to other images: {len(self.scores)} scores for {images} images",
                code="mismatch",
            )
        if self.scores is None or self.tau == 0:
            return None
        h = self.scores.nan_to_num(float(self.scores.nanmean()))
        return None if h.sum() == 0 else self.tau * h / h.sum() + (1 - self.tau) / images

    def draw(self, images: int, count: int, generator: Generator) -> Tensor:
        """The order of a new epoch. Observations that were not turned into scores are dropped.

        Args:
            images: N.
            count: how many to show.
            generator: on the CPU.

        Returns:
            int64 `(count,)`, indices of images.
        """
        q = self.probabilities(images)
        once = self.scores is None or self._draws == "systematic"
        self._weights, self._observed, self._seen, self._images = None, [], 0, images
        if q is None and once:
            self._order = torch.randperm(images, generator=generator)[:count]
        elif self._draws == "systematic":
            assert q is not None
            self._order = systematic(q, count, generator)
        else:
            even = torch.full((images,), 1 / images, dtype=torch.float64)
            self._order = torch.multinomial(even if q is None else q, count, replacement=True, generator=generator)
        if q is not None:
            self._weights = 1 / (images * q[self._order])
        return self._order

    def observe(self, scores: Tensor) -> Tensor | None:
        """Record the scores of the next batch of the order.

        Args:
            scores: `(batch,)`, not negative, in the order of the batch's images; on any device.

        Returns:
            The importance weights of the same images, float32 on the device of `scores`; None if all are 1.
        """
        start, self._seen = self._seen, self._seen + len(scores)
        self._observed.append(scores.detach())
        if self._weights is None:
            return None
        if self._weights.device != scores.device or self._weights.dtype != torch.float32:
            self._weights = self._weights.to(scores.device, torch.float32)  # once an epoch
        return self._weights[start : self._seen]

    def end_epoch(self) -> Coverage:
        """Turn the observations into scores: the only transfer from the device in an epoch.

        Raises:
            RuntimeError: not every image of the order has been observed.
        """
        if self._seen != len(self._order) or not self._seen:
            raise RuntimeError(f"{self._seen} scores were observed for the {len(self._order)} images of the epoch")
        observed = torch.cat(self._observed).cpu().double()
        new = average(self._order, observed, self._images, by=self._average)
        old = self.scores if self.scores is not None and self._carry else torch.full_like(new, torch.nan)
        scores = torch.where(new.isnan(), old, new)
        self.scores = scores if self._carry else scores.nan_to_num(0.0)
        shown = int((~new.isnan()).sum())
        self._observed = []
        return Coverage(shown / self._images, effective_share(self._weights))

    def state_dict(self) -> dict[str, Any]:
        """The scores; `tau` is part of the caller's schedule."""
        return {"scores": self.scores}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.scores = state["scores"]


def systematic(q: Tensor, count: int, generator: Generator) -> Tensor:
    """Systematic sampling: index i appears floor(count q_i) or ceil(count q_i) times, on average count q_i times.

    The points (u + j) / count, j = 0, 1, ..., count - 1, with one u ~ U(0, 1), fall into intervals of lengths q_i.

    Args:
        q: float64 (N,), sums to 1.
        count: number of indices.
        generator: on the CPU.

    Returns:
        int64 `(count,)` in random order.
    """
    u = torch.rand((), generator=generator, dtype=torch.float64)
    points = (u + torch.arange(count, dtype=torch.float64)) / count
    ends = q.cumsum(0)
    chosen = torch.searchsorted(ends / ends[-1], points, right=True).clamp(max=len(q) - 1)
    return chosen[torch.randperm(count, generator=generator)]


def average(indices: Tensor, values: Tensor, size: int, *, by: Average) -> Tensor:
    """The average of the values of each index: their mean, or by halves, h = e_1, then h <- (h + e_k) / 2 in order.

    Args:
        indices: int64 (n,).
        values: float64 (n,).
        size: number of indices.
        by: see `ImportanceSampler`.

    Returns:
        float64 `(size,)`, nan for an index without values.
    """
    counts = torch.bincount(indices, minlength=size)
    if by == "mean":
        return torch.zeros(size, dtype=torch.float64).index_add_(0, indices, values) / counts  # 0 / 0 is nan
    order = indices.argsort(stable=True)
    first = counts.cumsum(0) - counts
    k = torch.arange(len(indices)) - first[indices[order]]  # from 0, within an index
    left = counts[indices[order]] - 1 - k  # halvings after this one
    share = 0.5 ** (left + (k > 0)).double()
    h = torch.zeros(size, dtype=torch.float64).index_add_(0, indices[order], share * values[order])
    return torch.where(counts > 0, h, torch.nan)


def effective_share(weights: Tensor | None) -> float:
    """Kish's effective sample size (sum w)^2 / sum w^2 as a share of the sample; None means that all weights are 1."""
    return 1.0 if weights is None else float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))
