"""Seeds for each purpose out of one seed of the user."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch


def seed_for(seed: int, purpose: str) -> int:
    """A seed for one purpose (`split`, `paths`, ...) out of a user's, so that no two of them share their draws."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4])


@dataclass(frozen=True)
class Seeds:
    """All seeds of one run, a different one for each purpose.

    Attributes:
        seed: the user's.
    """

    seed: int

    def __call__(self, purpose: str) -> int:
        """The seed for one purpose; see `seed_for`."""
        return seed_for(self.seed, purpose)

    def generator(self, purpose: str) -> torch.Generator:
        """A new CPU generator for one purpose."""
        return torch.Generator().manual_seed(self(purpose))
