"""Adam for vectors of which a step may touch only some entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")


class MaskedAdam:
    """torch's Adam, but entries that a step leaves out keep their values and moments to the bit.

    Plain Adam moves an entry of gradient 0 by its momentum, and forgets its second moment.

    Args:
        vectors: by name. lr, betas: as for `torch.optim.Adam`.
    """

    def __init__(self, vectors: Mapping[str, nn.Parameter], *, lr: float, betas: tuple[float, float]) -> None:
        self._vectors = dict(vectors)
        self._adam = torch.optim.Adam(list(self._vectors.values()), lr=lr, betas=betas)

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], entries: Mapping[str, Sequence[int]]) -> None:
        """Follow the gradients in these entries of these vectors; all else stays."""
        masks = {name: _mask(self._vectors[name], indices) for name, indices in entries.items()}
        before = {name: [tensor.clone() for tensor in self._tensors(name)] for name in entries}
        for name, vector in self._vectors.items():
            vector.grad = gradients[name] * masks[name] if name in masks else None  # Adam passes over None
        self._adam.step()
        for name, mask in masks.items():
            # On a vector's first step there are no moments yet to go back to; those made of a gradient of 0 are 0.
            for tensor, old in zip(self._tensors(name), before[name], strict=False):
                tensor.copy_(torch.where(mask, tensor, old))

    def _tensors(self, name: str) -> list[Tensor]:
        vector = self._vectors[name]
        return [vector, *(self._adam.state[vector][moment] for moment in MOMENTS if vector in self._adam.state)]

    def state_dict(self) -> dict[str, Any]:
        """Adam's own."""
        return self._adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._adam.load_state_dict(state)


def _mask(vector: Tensor, indices: Sequence[int]) -> Tensor:
    return torch.tensor([index in indices for index in range(len(vector))], device=vector.device)
