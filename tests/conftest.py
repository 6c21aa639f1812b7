"""Shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as the command line does, before torch is loaded

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and tables beside the checkout, which a user's machine has not."""
    if not SHARED.is_dir():
        pytest.skip("needs the real images and benchmark tables in ../shared/data")
    return SHARED
