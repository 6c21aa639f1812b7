"""Where zeros may lie: so many in each layer, so many in all, or so many in each group of consecutive weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nas.errors import UserError
from pruning.masks import lowest

Scores = Mapping[str, Tensor]
"""How much each weight matters, by the weight's name and of its shape: the lowest go first."""


class Pattern(Protocol):
    """Chooses the weights to keep by their scores. A method decides the scores, a pattern how many go and where."""

    def select(self, scores: Scores, share: float = 1.0) -> dict[str, Tensor]:
        """Masks (True: kept) with `share`, 0 to 1, of the pattern's zeros, rounded to whole weights."""
        ...


@dataclass(frozen=True)
class Layerwise:
    """Exactly `zeros[name]` in each weight; what an allocation gives."""

    zeros: Mapping[str, int]

    def select(self, scores: Scores, share: float = 1.0) -> dict[str, Tensor]:
        return {name: ~lowest(score, round(share * self.zeros[name])) for name, score in scores.items()}


@dataclass(frozen=True)
class Globally:
    """Exactly `zeros` over all weights together, wherever the scores are lowest.

    A layer keeps at least its `least` highest scores, so that none is cut through.
    """

    zeros: int
    least: int = 1

    def select(self, scores: Scores, share: float = 1.0) -> dict[str, Tensor]:
        spared = []
        for score in scores.values():
            flat = score.detach().reshape(-1).clone()
            flat[flat.topk(min(self.least, flat.numel())).indices] = torch.inf
            spared.append(flat)
        kept = ~lowest(torch.cat(spared), round(share * self.zeros))
        parts = kept.split([flat.numel() for flat in spared])
        return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


@dataclass(frozen=True)
class NOfM:
    """At least `n` zeros in every `m` consecutive weights: 2:4 is what sparse tensor cores take.

    Consecutive along the input dimension: `(out, in, kh, kw)` is read as `(out, kh, kw, in)`, as hardware multiplies.

    Attributes:
        n: zeros in a group. m: weights in a group.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise UserError("pattern", f"{self.n}:{self.m} must have more than 0 zeros and fewer than the group")

    def select(self, scores: Scores, share: float = 1.0) -> dict[str, Tensor]:
        return {name: self._select(name, score, round(share * self.n)) for name, score in scores.items()}

    def _select(self, name: str, score: Tensor, n: int) -> Tensor:
        last = score.movedim(1, -1)
        if last.shape[-1] % self.m:
            raise UserError(name, f"has {last.shape[-1]} inputs, not a multiple of the {self.m} of {self.n}:{self.m}")
        groups = last.reshape(-1, self.m)
        order = groups.argsort(dim=1, stable=True)
        kept = torch.ones_like(groups, dtype=torch.bool).scatter_(1, order[:, :n], value=False)
        return kept.view(last.shape).movedim(-1, 1).contiguous()
