"""Whether the table that a strategy pays by says what this recipe's device would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from espalier.nas.cost.block_table import is_block_table
from espalier.nas.errors import UserError
from espalier.nas.files import read_json
from espalier.recipes.engine.context import Context

WHERE = "supernet.strategy.cost"
SAME = ("threads", "batch")
"""What a table's spec and the recipe's profile must share."""


def check_cost_table(context: Context, strategy: Any) -> None:
    """Refuse a table of latencies that was measured elsewhere, or in another way.

    Args:
        strategy: the settings of the recipe's strategy; their cost table has been read before.

    Raises:
        UserError: the table is of another device, which `any_device` allows, or of other threads or another batch.
    """
    path = Path(getattr(strategy, "cost", ""))
    if path.suffix != ".json" or not is_block_table(table := read_json(path)):
        return
    profile = context.recipe.profile
    for name in SAME:
        if table["spec"].get(name) != getattr(profile, name):
            problem = f"the table was measured with {name} {table['spec'].get(name)}"
            raise UserError(WHERE, f"{problem}, and profile.{name} is {getattr(profile, name)}")
    if strategy.any_device:
        return
    device = context.measuring_device()
    here = device.fingerprint(profile.provider)
    device.close()
    if table["device"]["id"] != here["id"]:
        of, on = (f"{d['id']} ({d.get('cpu_model')}, {d.get('provider')})" for d in (table["device"], here))
        problem = f"the table is of device {of}, latency is measured on {on}"
        raise UserError(WHERE, f"{problem}; any_device: true takes it all the same")
