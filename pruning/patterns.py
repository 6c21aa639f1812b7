"""Sparsity patterns: a number of zeros for each layer, for all layers together, or for each group of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from espalier.nas.errors import UserError
from espalier.pruning.masks import flatten, lowest, lowest_in_rows, unflatten

Scores = Mapping[str, Tensor]
"""Importance of each weight, by the weight's name and in its shape; the lowest are pruned first."""


class Pattern(Protocol):
    """Chooses the weights to keep by their scores, which a method computes: how many are pruned, and where."""

    def select(self, scores: Scores, share: float = 1.0) -> dict[str, Tensor]:
        """Masks (True: kept) with `share`, 0 to 1, of the pattern's zeros, rounded to whole weights."""
        ...


@dataclass(frozen=True)
class Layerwise:
    """Exactly `zeros[name]` zeros in each weight, as an allocation returns them."""

    zeros: Mapping[str, int]

    def select(self, scores: Scores, share: float = 1.0) -> dict[str, Tensor]:
        for name, score in scores.items():
            if not 0 <= self.zeros.get(name, -1) <= score.numel():
                if name not in self.zeros:
                    raise UserError(name, "no number of zeros is given for this weight", code="missing")
                problem = f"its number of zeros must be from 0 to {score.numel()}, not {self.zeros[name]}"
                raise UserError(name, problem, code="out_of_range")
        return {name: ~lowest(score, round(share * self.zeros[name])) for name, score in scores.items()}


@dataclass(frozen=True)
class Globally:
    """Exactly `zeros` zeros over all weights together, wherever the scores are lowest.

    Each layer keeps at least its `least` highest scores, or the share `least_density` of its weights if that is more,
    so that no layer is cut off completely.
    """

    zeros: int
    least: int = 1
    least_density: float = 0.0

    def spared(self, n: int) -> int:
        """How many of a layer's `n` weights are always kept."""
        return min(n, max(self.least, math.ceil(self.least_density * n - 1e-9)))

    def select(self, scores: Scores, share: float = 1.0) -> dict[str, Tensor]:
        sizes = [score.numel() for score in scores.values()]
        most = sum(n - self.spared(n) for n in sizes)
        if not 0 <= self.zeros <= most:
            problem = (
                f"needs {self.zeros} zeros, but at most {most} of {sum(sizes)} weights in {len(sizes)} layers may go"
            )
            raise UserError("pattern", problem, code="infeasible")
        flats = []
        for score in scores.values():
            flat = flatten(score.detach())
            if least := self.spared(flat.numel()):
                highest = flat.topk(least, sorted=False).indices
                flat = flat.index_fill(0, highest, torch.inf)
            flats.append(flat)
        kept = ~lowest(torch.cat(flats), round(share * self.zeros))
        parts = kept.split(sizes)
        return {name: unflatten(part, score) for (name, score), part in zip(scores.items(), parts, strict=True)}


@dataclass(frozen=True)
class NOfM:
    """Exactly `n` zeros in every `m` consecutive weights: 2:4 is what sparse tensor cores support.

    Consecutive along the input dimension: `(out, in, kh, kw)` is read as `(out, kh, kw, in)`, as hardware multiplies.

    Attributes:
        n: zeros in each group.
        m: weights in each group.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            problem = f"{self.n}:{self.m} must have more than 0 and fewer than {self.m} zeros in each group"
            raise UserError("pattern", problem, code="out_of_range")

    def select(self, scores: Scores, share: float = 1.0) -> dict[str, Tensor]:
        return {name: self._select(name, score, round(share * self.n)) for name, score in scores.items()}

    def _select(self, name: str, score: Tensor, n: int) -> Tensor:
        last = score.detach().movedim(1, -1)
        if last.shape[-1] % self.m:
            problem = f"has {last.shape[-1]} inputs, which is not a multiple of {self.m} as {self.n}:{self.m} requires"
            raise UserError(name, problem, code="mismatch")
        kept = ~lowest_in_rows(last.reshape(-1, self.m), n)
        return torch.empty_like(score, dtype=torch.bool).copy_(kept.view(last.shape).movedim(-1, 1))
