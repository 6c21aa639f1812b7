"""Time the exported networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.drift import measure_batch
from nas.architecture import Architecture
from nas.errors import UserError
from nas.files import write_json
from nas.measurement import Measurement
from recipes.context import Context


def run(context: Context) -> dict[str, Any]:
    """Measures each ONNX file of the stage `export` on the recipe's device, its drift meanwhile divided out."""
    networks = context.outputs["train"]["networks"]
    folders = [context.run.architecture(Architecture(network["architecture"])) for network in networks]
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
        outputs[network["id"]] = measurement.to_dict()
    return outputs


def _write(onnx_file: Path, measurement: Measurement) -> None:
    write_json(onnx_file.with_name("latency.json"), measurement.to_dict())
