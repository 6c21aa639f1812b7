"""What `nas lut build` and `nas lut check` do and print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier.export.devices.address import open_device
from espalier.export.devices.base import MeasureSpec
from espalier.export.latency_table.build import build_block_table
from espalier.export.latency_table.check import Figure, TableCheck, TableError, check_table
from espalier.nas.cost.block_plan import block_plan
from espalier.nas.cost.block_table import BlockTable, parse_block_table
from espalier.nas.errors import UserError
from espalier.nas.files import read_json
from espalier.nas.progress import Track
from espalier.nas.region import Region
from espalier.recipes.commands.lut.space_source import GivenSpace, given_space, space_of_origin


def listed_blocks(given: GivenSpace) -> list[dict[str, Any]]:
    """The blocks of a space, and in how many of its slots each can stand."""
    plan = block_plan(given.space)
    slots = Counter(key for slot in plan.slots for key in set(slot.keys.values()) if key is not None)
    return [{"block": key, "family": block.family, "slots": slots[key]} for key, block in plan.blocks.items()]


def blocks_text(blocks: Sequence[Mapping[str, Any]]) -> str:
    """A line for each block, and how many there are."""
    lines = [f"{row['block']:60} {row['slots']:4} slots" for row in blocks]
    return "\n".join([*lines, f"{len(blocks)} blocks to measure"])


def build_table(given: GivenSpace, output: Path, *, device: str, spec: MeasureSpec, track: Track) -> BlockTable:
    """Measure the table of a space; a killed measurement goes on.

    Raises:
        UserError: a wrong device, or a block cannot be exported or run.
    """
    target = open_device(device, where="--device")
    try:
        return build_block_table(given.space, target, spec, output, origin=given.origin, track=track)
    finally:
        target.close()


def table_summary(table: BlockTable, given: GivenSpace, output: Path) -> dict[str, Any]:
    """Where it is, how many blocks it has and how far they are trusted, and the range of the space's latencies."""
    costs = table.costs(given.space)
    region = Region.whole(given.space)
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


def check_file(
    path: Path,
    *,
    space: str | None,
    image_size: int | None,
    channels: int | None,
    classes: int | None,
    device: str,
    threads: int | None,
    batch: int | None,
    networks: int,
    calibrate: int,
    seconds: float,
    any_device: bool,
    track: Track,
) -> TableCheck:
    """Check a table; the arguments are the options of the command.

    Raises:
        UserError: the table cannot be read, or is of another space, device, number of threads or batch.
    """
    if not path.is_file():
        raise UserError(str(path), "no such file")
    value = read_json(path)
    if space is None:
        origin = value.get("origin") if isinstance(value, dict) else None
        made = space_of_origin(origin or {}, where=str(path))
    else:
        made = given_space(None, (), space=space, image_size=image_size, channels=channels, classes=classes).space
    table = parse_block_table(value, made, where=str(path))
    known = table.spec
    spec = MeasureSpec(
        threads=known["threads"] if threads is None else threads,
        batch=known["batch"] if batch is None else batch,
        sessions=known["sessions"],
        seconds=seconds,
        min_runs=known["min_runs"],
        provider=known.get("provider"),
    )
    target = open_device(device, where="--device")
    try:
        return check_table(
            table,
            made,
            target,
            spec,
            path.with_name(f"{path.name}.check.partial"),
            held_out=networks,
            calibration=calibrate,
            any_device=any_device,
            seconds=seconds,
            track=track,
        )
    finally:
        target.close()


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
    lines.append(f"calibrated by {calibration.networks} other networks: {calibration.form}")
    lines.append(f"the reference network takes {check.drift:.2f} of what it took when the table was built")
    return "\n".join(lines)


def _cell(error: TableError, name: str, form: str) -> str:
    figure: Figure = getattr(error, name)
    low, high = (form.format(bound) for bound in figure.ci95)
    return f"{form.format(figure.value)} [{low}, {high}]"
