"""Time the exported networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from espalier.export.devices.base import Device
from espalier.export.drift import measure_batch
from espalier.nas.errors import UserError
from espalier.nas.files import write_json
from espalier.nas.measurement import Measurement
from espalier.nas.progress import Track
from espalier.nas.run import RunFolder
from espalier.recipes.config.sections.profile import ProfileSettings
from espalier.recipes.records.networks import TrainedNetwork
from espalier.recipes.records.reading import exceeds


def run(
    settings: ProfileSettings,
    networks: Sequence[TrainedNetwork],
    limit_ms: float | None,
    *,
    open_device: Callable[[], Device],
    run: RunFolder,
    track: Track,
) -> dict[str, Measurement]:
    """Measures each exported ONNX file on the recipe's device, with the device's drift divided out.

    What exceeds the limit is measured again, twice as long, and that measurement counts: it met the budget before it
    was trained, and weights do not change the time.

    Args:
        settings: the recipe's section `profile`.
        networks: trained alone and exported.
        limit_ms: the budget's limit on latency, if there is one.
        open_device: opens the recipe's device.
        run: the run folder.
        track: shows progress.

    Returns:
        The latency of each network, by its id.

    Raises:
        UserError: a file cannot be run, or nothing that was found is within the limit.
    """
    files = {network.id: run.architecture(network.architecture) / "model.onnx" for network in networks}
    found = measure_batch(open_device(), list(files.values()), settings.spec(), keep=_write, track=track)
    measurements = {}
    for (id_, file), measurement in zip(files.items(), found, strict=True):
        if isinstance(measurement, UserError):
            raise measurement
        _write(file, measurement)
        measurements[id_] = measurement
    if limit_ms is not None:
        measurements |= measured_again(settings, files, measurements, limit_ms, open_device)
        check_limit(networks, measurements, limit_ms)
    return measurements


def measured_again(
    settings: ProfileSettings,
    files: dict[str, Path],
    measurements: dict[str, Measurement],
    limit_ms: float,
    open_device: Callable[[], Device],
) -> dict[str, Measurement]:
    """New measurements, twice as long, of what exceeds the limit, by id."""
    longer = settings.spec(sessions=2 * settings.sessions, seconds=2 * settings.seconds)
    again = {}
    for id_, file in files.items():
        if exceeds(measurements[id_], limit_ms):
            again[id_] = open_device().measure(file, longer)
            _write(file, again[id_])
    return again


def check_limit(networks: Sequence[TrainedNetwork], measurements: dict[str, Measurement], limit_ms: float) -> None:
    """Raises UserError where every network that was found exceeds the limit; with the nearest miss."""
    found = {network.id: measurements[network.id] for network in networks if not network.is_control}
    if not found or not all(exceeds(measurement, limit_ms) for measurement in found.values()):
        return
    nearest, measurement = min(found.items(), key=lambda one: one[1].latency.ci95[1])
    low, high = measurement.latency.ci95
    problem = f"the nearest miss of {len(found)} trained, {nearest}, takes {measurement.latency_ms:.4g} ms"
    limit = f"[{low:.4g}, {high:.4g}], and the limit is {limit_ms:g}"
    raise UserError("budget.latency_ms", f"{problem} {limit}", code="infeasible")


def _write(onnx_file: Path, measurement: Measurement) -> None:
    write_json(onnx_file.with_name("latency.json"), measurement.to_dict())
