"""Conversion between architectures and Optuna's parameters, which are plain scalars."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from espalier.nas.architecture import Architecture, Option
from espalier.nas.space import SearchSpace

Parameters = dict[str, Any]
"""One option for each choice; tuples of inputs are written as JSON."""


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """The choices of a space as distributions, in its order."""
    return {
        choice.name: CategoricalDistribution([_to_optuna(option) for option in choice.options])
        for choice in space.choices().values()
    }


def to_parameters(architecture: Architecture) -> Parameters:
    """The parameters of an architecture."""
    return {name: _to_optuna(option) for name, option in architecture.items()}


def to_architecture(parameters: Mapping[str, Any]) -> Architecture:
    """The architecture of these parameters."""
    return Architecture({name: _from_optuna(option) for name, option in parameters.items()})


def _to_optuna(option: Option) -> str | int | float | bool:
    return json.dumps(list(option)) if isinstance(option, tuple) else option


def _from_optuna(option: Any) -> Option:
    chosen: Option = tuple(json.loads(option)) if isinstance(option, str) and option.startswith("[") else option
    return chosen
