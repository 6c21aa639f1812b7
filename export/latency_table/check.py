"""The error of a table's sums on held-out networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espalier.export.devices.base import Device, MeasureSpec
from espalier.export.latency_table.bench import Bench
from espalier.export.latency_table.build import random_networks
from espalier.export.latency_table.calibrate import calibrate, check_enough
from espalier.nas.architecture import Architecture
from espalier.nas.cost.block_table import BlockTable
from espalier.nas.errors import UserError
from espalier.nas.intervals import RESAMPLES, SEED
from espalier.nas.progress import Track, silent
from espalier.nas.space import SearchSpace

HELD_OUT_SEED = 2
"""Another seed than the anchors', hence other networks; calibration uses the next ones of the same draw."""
SAME = ("threads", "batch", "provider")
"""What must be equal in a table's spec and the requested one."""


@dataclass(frozen=True)
class Figure:
    """A statistic over networks, and its 95 % bootstrap interval, networks resampled."""

    value: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class TableError:
    """Relative errors of a table, `table / measured - 1`.

    Attributes:
        networks: number of networks.
        bias: median error.
        median: median absolute error.
        within_5: share of networks with an absolute error of at most 5 %.
        within_10: share of networks with an absolute error of at most 10 %.
        tau: Kendall's tau-b between table and measurement.
    """

    networks: int
    bias: Figure
    median: Figure
    within_5: Figure
    within_10: Figure
    tau: Figure


@dataclass(frozen=True)
class TableCheck:
    """A table compared with whole networks, before and after calibration.

    Attributes:
        before: errors on the held-out networks before calibration.
        after: the same after calibration.
        calibrated: the table with its new calibration.
        drift: the reference's time now, divided by its time when the table was built.
        networks: for each held-out network its id, measured milliseconds with interval and verdict, and both sums.
    """

    before: TableError
    after: TableError
    calibrated: BlockTable
    drift: float
    networks: Sequence[Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the table but with its calibration."""
        calibration = self.calibrated.calibration
        return {
            "before": asdict(self.before),
            "after": asdict(self.after),
            "calibration": None if calibration is None else asdict(calibration),
            "drift": self.drift,
            "networks": list(self.networks),
        }


def check_networks(held_out: int, calibration: int) -> None:
    """Check the numbers of networks before any is measured.

    Raises:
        UserError: there are too few.
    """
    if held_out < 1:
        raise UserError("networks", f"must be at least 1, not {held_out}", code="out_of_range")
    check_enough(calibration)


def check_table(
    table: BlockTable,
    space: SearchSpace,
    device: Device,
    spec: MeasureSpec,
    partial: Path,
    *,
    held_out: int = 30,
    calibration: int = 20,
    any_device: bool = False,
    seconds: float = 0.6,
    track: Track = silent,
) -> TableCheck:
    """Measure random networks end to end, calibrate the table on some of them and evaluate it on the others.

    Networks are interleaved with the reference network that the table's blocks were timed with, and their times are
    scaled to the machine's speed at that time: drift is divided out, and reported.

    Args:
        table: a table of this space.
        space: builds the networks.
        device: runs them.
        spec: the same as the table's.
        partial: stores what is measured, so that an interrupted check can be resumed.
        held_out: number of networks to evaluate on.
        calibration: number of further networks to calibrate on.
        any_device: accept a table of another device; times are then those of this device.
        seconds: time budget of a network.
        track: shows progress.

    Raises:
        UserError: the table was measured on another device or with other settings; the space has too few networks.
    """
    check_networks(held_out, calibration)
    check_same_conditions(table, device.fingerprint(spec.provider), spec, any_device=any_device)
    bench = Bench(space, device, spec, partial, label=f"check of {table.space}")
    wanted = held_out + calibration
    drawn: list[tuple[Architecture, Any]] = []
    try:
        networks = random_networks(space, bench, HELD_OUT_SEED, seconds)
        for _ in track(range(wanted), "networks", wanted):
            drawn.extend([found] if (found := next(networks, None)) is not None else [])
        if len(drawn) < wanted:
            problem = f"the space has only {len(drawn)} networks to measure, not {wanted}"
            raise UserError("networks", problem, code="too_few")
        drawn = [(a, bench.network(a, seconds)) for a, _ in drawn]  # again for those timed in slow moments
        drift = bench.reference_ms / table.reference_ms
        is_same = bench.environment["id"] == table.device["id"]
        reference_ms = table.reference_ms if is_same else bench.reference_ms
    finally:
        bench.close()
    architectures = [architecture for architecture, _ in drawn]
    ms = np.array([share.share * reference_ms for _, share in drawn])
    calibrated = table.calibrated(calibrate(table, space, architectures[held_out:], ms[held_out:].tolist()))
    before, after = (np.array([t.costs(space).cost(a) for a in architectures[:held_out]]) for t in (table, calibrated))
    rows = [
        {
            "architecture": architecture.id,
            "measured_ms": float(measured),
            "ci95": [bound * reference_ms for bound in share.ci95],
            "verdict": share.verdict,
            "before_ms": float(was),
            "after_ms": float(now),
        }
        for (architecture, share), measured, was, now in zip(drawn, ms[:held_out], before, after, strict=False)
    ]
    partial.unlink()
    errors = [table_error(sums, ms[:held_out]) for sums in (before, after)]
    return TableCheck(errors[0], errors[1], calibrated, drift, rows)


def check_same_conditions(table: BlockTable, device: Mapping[str, Any], spec: MeasureSpec, *, any_device: bool) -> None:
    """Check that a table was measured on this device and with the same settings.

    Raises:
        UserError: another device without `any_device`, or other threads, batch or provider.
    """
    if device["id"] != table.device["id"] and not any_device:
        known = [f"{d['id']} ({d.get('cpu_model')}, {d.get('provider')})" for d in (table.device, device)]
        problem = f"the table was measured on {known[0]}, this is {known[1]}; any_device accepts it anyway"
        raise UserError("device", problem, code="mismatch")
    for name in SAME:
        if table.spec.get(name) != getattr(spec, name):
            problem = f"is {getattr(spec, name)}, the table was measured with {name} {table.spec.get(name)}"
            raise UserError(name, problem, code="mismatch")


def table_error(table_ms: np.ndarray, measured_ms: np.ndarray) -> TableError:
    """The errors of a table's sums; both arrays are `(networks,)`."""
    errors = table_ms / measured_ms - 1
    signs = [np.sign(x[:, None] - x) for x in (table_ms, measured_ms)]

    def figures(chosen: np.ndarray) -> tuple[float, ...]:
        off = errors[chosen]
        # Rounding must not decide whether an error of exactly 5 % counts.
        within = [float(np.mean(np.abs(off) <= bound + 1e-10)) for bound in (0.05, 0.10)]
        return (
            float(np.median(off)),
            float(np.median(np.abs(off))),
            *within,
            _tau(*(s[np.ix_(chosen, chosen)] for s in signs)),
        )

    generator = np.random.default_rng(SEED)
    count = len(errors)
    draws = np.array([figures(generator.integers(0, count, count)) for _ in range(RESAMPLES)])
    low, high = np.nanpercentile(draws, (2.5, 97.5), axis=0)
    values = figures(np.arange(count))
    return TableError(count, *(Figure(v, (float(a), float(b))) for v, a, b in zip(values, low, high, strict=True)))


def _tau(a: np.ndarray, b: np.ndarray) -> float:
    """Kendall's tau-b = sum_ij a_ij b_ij / sqrt( sum_ij a_ij^2 sum_ij b_ij^2 ) of signs of differences (1945)."""
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm else float("nan")
