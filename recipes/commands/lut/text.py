"""What `nas lut` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espalier.export.latency_table.check import Figure, TableCheck, TableError
from espalier.nas.cost.block_table import BlockTable
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.recipes.commands.lut.command import ListedBlock


def blocks_text(blocks: Sequence[ListedBlock]) -> str:
    """A line for each block, and how many there are."""
    lines = [f"{row.block:60} {row.slots:4} slots" for row in blocks]
    return "\n".join([*lines, f"{len(blocks)} blocks to measure"])


def table_summary(table: BlockTable, space: SearchSpace, output: Path) -> dict[str, Any]:
    """The file, the number of blocks and the verdicts on them, and the range of the space's latencies."""
    costs = table.costs(space)
    region = Region.whole(space)
    verdicts = Counter(entry.verdict for entry in table.entries.values())
    return {
        "table": str(output),
        "unit": table.unit,
        "blocks": len(table.entries),
        "verdicts": ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common()),
        "fixed": table.fixed,
        "networks from": costs.cheapest(region),
        "networks to": costs.most_expensive(region),
    }


def check_text(check: TableCheck) -> str:
    """A table of the errors before and after calibration."""
    calibration = check.calibrated.calibration
    assert calibration is not None
    held_out = check.before.networks
    lines = [f"{held_out} random networks, measured whole        as built              calibrated"]
    rows = {
        "bias": ("bias", "{:+.1%}"),
        "median absolute error": ("median", "{:.1%}"),
        "within 5 %": ("within_5", "{:.0%}"),
        "within 10 %": ("within_10", "{:.0%}"),
        "Kendall tau": ("tau", "{:.3f}"),
    }
    for title, (name, form) in rows.items():
        cells = [_cell(error, name, form) for error in (check.before, check.after)]
        lines.append(f"{title:30}{cells[0]:>27}{cells[1]:>27}")
    lines.append(f"calibrated with {calibration.networks} other networks: {calibration.form}")
    lines.append(f"the reference network takes {check.drift:.2f} of its time when the table was built")
    return "\n".join(lines)


def _cell(error: TableError, name: str, form: str) -> str:
    figure: Figure = getattr(error, name)
    low, high = (form.format(bound) for bound in figure.ci95)
    return f"{form.format(figure.value)} [{low}, {high}]"
