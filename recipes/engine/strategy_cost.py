"""What a strategy whose loss counts costs has to agree on with the rest of the recipe: its target and its table."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from espalier.export.devices.base import Device
from espalier.nas.cost.block_table import is_block_table
from espalier.nas.errors import UserError
from espalier.nas.files import read_json
from espalier.recipes.config.schema import Recipe
from espalier.recipes.config.sections.profile import ProfileSettings

WHERE = "supernet.strategy.cost"
SAME = ("threads", "batch")
"""What a table's spec and the recipe's profile must share."""


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


def check_cost_table(strategy: Any, profile: ProfileSettings, open_device: Callable[[], Device]) -> None:
    """Reject a table of latencies that was measured on another device, or in another way.

    Args:
        strategy: the settings of the recipe's strategy; their cost table has been read before.
        profile: how the recipe measures latency.
        open_device: opens what it is measured on.

    Raises:
        UserError: the table is of another device, which `any_device` allows, or of other threads or another batch.
    """
    path = Path(getattr(strategy, "cost", ""))
    if path.suffix != ".json" or not is_block_table(table := read_json(path)):
        return
    for name in SAME:
        if table["spec"].get(name) != getattr(profile, name):
            problem = f"the table was measured with {name} {table['spec'].get(name)}"
            raise UserError(WHERE, f"{problem}, but profile.{name} is {getattr(profile, name)}", code="mismatch")
    if strategy.any_device:
        return
    with closing(open_device()) as device:
        here = device.fingerprint(profile.provider)
    if table["device"]["id"] != here["id"]:
        of, on = (f"{d['id']} ({d.get('cpu_model')}, {d.get('provider')})" for d in (table["device"], here))
        problem = f"the table was measured on device {of}, but latency is measured on {on}"
        raise UserError(WHERE, f"{problem}; any_device: true uses it anyway", code="mismatch")


def _unit(cost: str) -> str:
    if cost == "macs":
        return cost
    if ".csv" in Path(cost).suffixes:  # a published table of latencies
        return "ms"
    table = read_json(Path(cost))
    return str(table.get("unit")) if isinstance(table, dict) else ""
