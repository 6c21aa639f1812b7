"""Contracts that every method keeps, as pytest suites: for the authors of own spaces, scores, strategies and others.

Each suite is a class. A test module subclasses it and overrides its fixture:

    from espalier.testing import SpaceContract

    class TestMySpace(SpaceContract):
        @pytest.fixture
        def space(self):
            return MySpace((1, 8, 8), 10)

The platform's own methods are tested by the same suites. This is the only package that needs pytest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from espalier.testing.data_sources import DataSourceContract as DataSourceContract
    from espalier.testing.devices import DeviceContract as DeviceContract
    from espalier.testing.pruners import PrunerContract as PrunerContract
    from espalier.testing.scores import ScoreContract as ScoreContract
    from espalier.testing.spaces import SpaceContract as SpaceContract
    from espalier.testing.strategies import StrategyContract as StrategyContract

_SUITES = {
    "DataSourceContract": "data_sources",
    "DeviceContract": "devices",
    "PrunerContract": "pruners",
    "ScoreContract": "scores",
    "SpaceContract": "spaces",
    "StrategyContract": "strategies",
}
__all__ = list(_SUITES)

pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _SUITES.values()))


def __getattr__(name: str) -> Any:
    """The suite of that name; its part of the platform is imported only then."""
    if name not in _SUITES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_SUITES[name]}"), name)
