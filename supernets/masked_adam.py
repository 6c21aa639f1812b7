"""Adam for vectors of which a step may change only some entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

EPSILON = 1e-8
"""Of Adam's denominator (Kingma & Ba, "Adam", ICLR 2015)."""


class MaskedAdam:
    """Adam with a state for every entry: entries left out of a step keep their value, moments and step count.

        m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
        x <- x - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    (algorithm 1 of Kingma & Ba, "Adam", ICLR 2015, with t counted by entry). Plain Adam would move an entry of gradient
    0 by its momentum, forget its second moment, and take too large a first step in an entry that is first updated late.

    Args:
        vectors: by name.
        lr: as for `torch.optim.Adam`.
        betas: as for `torch.optim.Adam`.
    """

    def __init__(self, vectors: Mapping[str, nn.Parameter], *, lr: float, betas: tuple[float, float]) -> None:
        self._vectors = dict(vectors)
        self._lr = lr
        self._betas = betas
        self._m = {name: torch.zeros_like(vector) for name, vector in self._vectors.items()}
        self._v = {name: torch.zeros_like(vector) for name, vector in self._vectors.items()}
        self._t = {name: torch.zeros_like(vector) for name, vector in self._vectors.items()}
        self._indices: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], entries: Mapping[str, Sequence[int]]) -> None:
        """Update these entries of these vectors; everything else stays bitwise equal."""
        b1, b2 = self._betas
        for name, options in entries.items():
            i = self._index(name, tuple(options))
            g = gradients[name][i]
            t = self._t[name][i] + 1
            m = b1 * self._m[name][i] + (1 - b1) * g
            v = b2 * self._v[name][i] + (1 - b2) * g**2
            move = self._lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + EPSILON)
            self._vectors[name].index_add_(0, i, -move)
            for kept, new in ((self._m, m), (self._v, v), (self._t, t)):
                kept[name].index_copy_(0, i, new)

    def _index(self, name: str, options: tuple[int, ...]) -> Tensor:
        key = (name, options)
        if key not in self._indices:
            self._indices[key] = torch.tensor(options, device=self._vectors[name].device)
        return self._indices[key]

    def state_dict(self) -> dict[str, Any]:
        """Moments and step counts by name."""
        return {key: dict(kept) for key, kept in (("m", self._m), ("v", self._v), ("t", self._t))}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Restore what `state_dict` returned."""
        for key, kept in (("m", self._m), ("v", self._v), ("t", self._t)):
            for name, tensor in kept.items():
                tensor.copy_(state[key][name])
