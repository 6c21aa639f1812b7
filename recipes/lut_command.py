"""`nas lut build`: the latencies of a space's operators on a device, as a table that searches add up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.devices.address import open_device
from export.devices.base import MeasureSpec
from export.latency_table import measure_latency_table
from nas.cost_table import CostTable
from nas.progress import Track, silent
from nas.run import RunFolder
from recipes.loading import load_recipe
from recipes.runner import new_context


def build_table(
    recipe: str, overrides: Sequence[str], output: Path, *, device: str, spec: MeasureSpec, track: Track
) -> CostTable:
    """Measure the table of a recipe's space, for the images and classes of its data; a killed measurement goes on.

    The recipe's supernet is not looked at, so it may name the table that is about to be made.

    Raises:
        UserError: a wrong recipe or device, or an operator cannot be exported or run.
    """
    context = new_context(load_recipe(recipe, overrides), RunFolder(output.parent), silent)
    return measure_latency_table(context.space, open_device(device, where="--device"), spec, output, track)


def table_summary(table: CostTable, output: Path) -> dict[str, Any]:
    """Where it is, the range of the space's latencies, and how far the sum is off for the dearest network."""
    check = table.provenance["check"]
    return {
        "table": str(output),
        "unit": table.unit,
        "fixed": table.fixed,
        "measured_for_the_dearest": check["measured_ms"],
        "table_for_the_dearest": check["table_ms"],
    }
