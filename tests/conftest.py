"""Shared fixtures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no failure.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Set before torch is loaded: the networks here are too small for more threads, and another number of threads rounds
# otherwise, so that a process would not find exactly what another one did.
os.environ["OMP_NUM_THREADS"] = "1"

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and tables beside the checkout, which a user's machine has not."""
    if not SHARED.is_dir():
        pytest.skip("needs the real images and benchmark tables in ../shared/data")
    return SHARED
