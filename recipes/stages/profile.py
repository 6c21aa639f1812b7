"""Time the exported networks."""

from __future__ import annotations

from typing import Any

from nas.architecture import Architecture
from nas.files import write_json
from recipes.context import Context


def run(context: Context) -> dict[str, Any]:
    """Measures each ONNX file of the stage `export` on the recipe's device."""
    device, spec = context.measuring_device(), context.recipe.profile.spec()
    outputs = {}
    networks = context.outputs["train"]["networks"]
    for network in context.track(networks, "profile", len(networks)):
        folder = context.run.architecture(Architecture(network["architecture"]))
        measurement = device.measure(folder / "model.onnx", spec).to_dict()
        write_json(folder / "latency.json", measurement)
        outputs[network["id"]] = measurement
    return outputs
