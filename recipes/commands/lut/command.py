"""`nas lut build` and `nas lut check`: tables of the latency of a space's blocks on a device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from espalier.export.devices.base import MeasureSpec
from espalier.export.latency_table.build import build_block_table
from espalier.export.latency_table.check import TableCheck, check_networks, check_table
from espalier.nas.cost.block_plan import block_plan
from espalier.nas.cost.block_table import BlockTable, parse_block_table
from espalier.nas.errors import UserError
from espalier.nas.files import check_writable_place, read_json
from espalier.nas.space import SearchSpace
from espalier.recipes.commands import defaults
from espalier.recipes.commands.lut.space_source import GivenSpace, given_space, space_of_origin
from espalier.recipes.commands.progress import track
from espalier.recipes.config.devices import open_device
from espalier.recipes.config.loading import format_override


@dataclass(frozen=True)
class ListedBlock:
    """A block of a space.

    Attributes:
        block: its key.
        family: of blocks that share a calibration.
        slots: in how many places of the space it can stand.
    """

    block: str
    family: str
    slots: int

    def to_dict(self) -> dict[str, Any]:
        """As `nas lut build --list --json` prints it."""
        return asdict(self)


def listed_blocks(given: GivenSpace) -> list[ListedBlock]:
    """The blocks of a space that a table has to measure."""
    plan = block_plan(given.space)
    slots = Counter(key for slot in plan.slots for key in set(slot.keys.values()) if key is not None)
    return [ListedBlock(key, block.family, slots[key]) for key, block in plan.blocks.items()]


def build_latency_table(
    output: str | Path,
    *,
    recipe: str | Path | None = None,
    space: str | SearchSpace | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
    device: str | None = None,
    threads: int | None = None,
    batch: int | None = None,
    sessions: int = defaults.BLOCK_SESSIONS,
    seconds: float = defaults.BLOCK_SECONDS,
    overrides: Mapping[str, Any] | None = None,
) -> BlockTable:
    """Measure the latency of every block of a space on a device; the latency of a network is estimated by their sum.

    Args:
        output: the file of the table. A measurement that was killed is resumed.
        recipe: a recipe file, or the name of one that ships; its space is measured, as its profile says.
        space: `NAME` or `NAME:key=value,...` (see `nas ls`), or an object, instead of a recipe.
        image_size: height and width of an image, for a space by name; None is 32.
        channels: of an image, for a space by name; None is 3.
        classes: outputs of the networks, for a space by name; None is 10.
        device: where to measure; None is the recipe's, or `local`.
        threads: of ONNX Runtime; None is as the recipe says, or one per physical core.
        batch: images in one run; None is as the recipe says, or 1.
        sessions: fresh sessions for each block, preferably an even number.
        seconds: time budget of the timed runs of each block.
        overrides: of the recipe, such as `{"space.width": 0.5}`.

    Raises:
        UserError: an argument cannot be used, or a block cannot be exported or run.
    """
    given = given_space(
        None if recipe is None else str(recipe),
        [format_override(key, value) for key, value in (overrides or {}).items()],
        space=space,
        image_size=image_size,
        channels=channels,
        classes=classes,
    )
    return build_table(
        given, Path(output), device=device, threads=threads, batch=batch, sessions=sessions, seconds=seconds
    )


def build_table(
    given: GivenSpace,
    output: Path,
    *,
    device: str | None,
    threads: int | None,
    batch: int | None,
    sessions: int,
    seconds: float,
) -> BlockTable:
    """Measure the table of a space.

    Raises:
        UserError: see `build_latency_table`.
    """
    check_writable_place(output, where="output", folder=False)
    profile = given.profile
    spec = MeasureSpec(
        threads=profile.threads if threads is None else threads,
        batch=profile.batch if batch is None else batch,
        provider=profile.provider,
        sessions=sessions,
        seconds=seconds,
        min_runs=defaults.BLOCK_MIN_RUNS,
    )
    target = open_device(device or profile.device, where="device")
    try:
        return build_block_table(given.space, target, spec, output, origin=given.origin, track=track)
    finally:
        target.close()


def check_latency_table(
    table: str | Path,
    *,
    space: str | SearchSpace | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
    device: str = defaults.DEVICE,
    threads: int | None = None,
    batch: int | None = None,
    networks: int = defaults.CHECK_NETWORKS,
    calibrate: int = defaults.CALIBRATION_NETWORKS,
    seconds: float = defaults.CHECK_SECONDS,
    any_device: bool = False,
) -> TableCheck:
    """Measure random networks end to end, and compare them with a table's sums, before and after calibration.

    Args:
        table: the file of the table.
        space: of the table; None is the one that the table names.
        image_size: see `build_latency_table`.
        channels: see `build_latency_table`.
        classes: see `build_latency_table`.
        device: where to measure.
        threads: of ONNX Runtime; None is as the table.
        batch: images in one run; None is as the table.
        networks: random networks to test the table on.
        calibrate: further random networks to calibrate it with.
        seconds: time budget of the timed runs of each network.
        any_device: also accept a table of another device.

    Raises:
        UserError: the table cannot be read, or belongs to another space, device, number of threads or batch.
    """
    check_networks(networks, calibrate)
    path = Path(table)
    if not path.is_file():
        raise UserError(str(path), "no such file", code="not_found")
    value = read_json(path)
    if space is None:
        origin = value.get("origin") if isinstance(value, dict) else None
        made = space_of_origin(origin or {}, where=str(path))
    else:
        made = given_space(None, (), space=space, image_size=image_size, channels=channels, classes=classes).space
    known = parse_block_table(value, made, where=str(path))
    spec = MeasureSpec(
        threads=known.spec["threads"] if threads is None else threads,
        batch=known.spec["batch"] if batch is None else batch,
        sessions=known.spec["sessions"],
        seconds=seconds,
        min_runs=known.spec["min_runs"],
        provider=known.spec.get("provider"),
    )
    target = open_device(device, where="device")
    try:
        return check_table(
            known,
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
