"""Seeds for each purpose out of one seed of the user."""

from __future__ import annotations

import hashlib


def seed_for(seed: int, purpose: str) -> int:
    """A seed for one purpose (`split`, `paths`, ...) out of a user's, so that no two of them share their draws."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4])
