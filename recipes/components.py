"""What goes by which name in a recipe and on the command line. Everything is imported when it is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from nas.errors import UserError

SPACES = {"nasbench201": "nas.spaces.nasbench201:NasBench201"}
STRATEGIES = {"spos": "supernets.spos:SinglePathOneShot"}
COSTS = {"params": "predictors.costs:ParamsPredictor", "macs": "predictors.costs:MacsPredictor"}
SCORES = {
    "gradsign": "predictors.zero_cost.gradsign:GradSign",
    "naswot": "predictors.zero_cost.naswot:NASWOT",
    "synflow": "predictors.zero_cost.synflow:SynFlow",
}
INHERITED = "inherited"
"""The one predictor that needs a trained supernet."""
PREDICTORS = (*COSTS, *SCORES, INHERITED)
DEVICES = {"local": "export.devices.local:LocalDevice"}


def load(table: Mapping[str, str], name: str, *, where: str) -> Any:
    """The class that `name` stands for in one of the tables above.

    Raises:
        UserError: no such name; `where` is the key or option that holds it.
    """
    if name not in table:
        raise UserError(where, f"nothing is called {name!r}", allowed=table, given=name)
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def listing() -> dict[str, list[str]]:
    """Everything that can be named, by role."""
    from typing import get_args

    from nas.data import SOURCES
    from nas.search.settings import SamplerName
    from recipes.shipped import shipped_recipes

    return {
        "recipes": sorted(shipped_recipes()),
        "spaces": sorted(SPACES),
        "strategies": sorted(STRATEGIES),
        "predictors": sorted(PREDICTORS),
        "samplers": sorted(get_args(SamplerName)),
        "data sources": sorted(SOURCES),
        "devices": sorted(DEVICES),
    }
