"""Time the exported networks."""

from __future__ import annotations

from pathlib import Path

from espalier.export.drift import measure_batch
from espalier.nas.errors import UserError
from espalier.nas.files import write_json
from espalier.nas.measurement import Measurement
from espalier.recipes.engine.context import Context
from espalier.recipes.records.reading import exceeds


def run(context: Context) -> dict[str, Measurement]:
    """Measures each ONNX file of the stage `export` on the recipe's device, its drift meanwhile divided out.

    Under a budget, what misses it is measured again, twice as long, and that counts: it kept the budget before it was
    trained, and its weights do not matter to the time.

    Raises:
        UserError: a file cannot be run, or nothing that was found is within the budget.
    """
    networks = context.stages.networks
    folders = [context.run.architecture(network.architecture) for network in networks]
    found = measure_batch(
        context.measuring_device(),
        [folder / "model.onnx" for folder in folders],
        context.recipe.profile.spec(),
        keep=_write,
        track=context.track,
    )
    outputs = {}
    for network, folder, measurement in zip(networks, folders, found, strict=True):
        if isinstance(measurement, UserError):
            raise measurement
        _write(folder / "model.onnx", measurement)
        outputs[network.id] = measurement
    limit = None if context.recipe.budget is None else context.recipe.budget.latency_ms
    return outputs if limit is None else under(limit, context, outputs)


def under(limit: float, context: Context, outputs: dict[str, Measurement]) -> dict[str, Measurement]:
    """The outputs, what missed the limit measured again; those that still miss stay in, and are no results.

    Raises:
        UserError: nothing that was found is within the limit; with the nearest miss.
    """
    profile, networks = context.recipe.profile, context.stages.networks
    longer = profile.spec(sessions=2 * profile.sessions, seconds=2 * profile.seconds)
    for network in networks:
        if exceeds(outputs[network.id], limit):
            file = context.run.architecture(network.architecture) / "model.onnx"
            measurement = context.measuring_device().measure(file, longer)
            _write(file, measurement)
            outputs[network.id] = measurement
    found = [network.id for network in networks if not network.is_control]
    if found and all(exceeds(outputs[id_], limit) for id_ in found):
        nearest = min(found, key=lambda id_: outputs[id_].latency.ci95[1])
        latency = outputs[nearest].latency
        problem = f"the nearest miss of {len(found)} trained, {nearest}, takes {latency.p50:.4g} ms"
        low, high = latency.ci95
        raise UserError("budget.latency_ms", f"{problem} [{low:.4g}, {high:.4g}], and <= {limit:g} was asked for")
    return outputs


def _write(onnx_file: Path, measurement: Measurement) -> None:
    write_json(onnx_file.with_name("latency.json"), measurement.to_dict())
