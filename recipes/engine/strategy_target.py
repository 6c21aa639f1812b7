"""The target of a strategy whose loss counts what networks cost, where the recipe's budget says it already."""

from __future__ import annotations

from pathlib import Path

from espalier.nas.files import read_json
from espalier.recipes.config.schema import Recipe


def target_of(recipe: Recipe) -> float | None:
    """The budget's limit in the unit that the strategy counts; None where it has a target of its own or needs none.

    Raises:
        UserError: the strategy's table of costs cannot be read.
    """
    budget, supernet = recipe.budget, recipe.supernet
    if budget is None or supernet is None:
        return None
    strategy = supernet.strategy
    if getattr(strategy, "loss", "none") == "none" or strategy.target is not None:
        return None
    limits = {"ms": budget.latency_ms, **budget.costs}
    return limits.get(_unit(strategy.cost))


def _unit(cost: str) -> str:
    if cost == "macs":
        return cost
    if ".csv" in Path(cost).suffixes:  # a published table of latencies
        return "ms"
    table = read_json(Path(cost))
    return str(table.get("unit")) if isinstance(table, dict) else ""
