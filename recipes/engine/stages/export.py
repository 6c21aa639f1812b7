"""Write each trained network as ONNX, safetensors, source and a model card."""

from __future__ import annotations

from functools import partial

from torch.fx import GraphModule

from espalier.export.bundle import write_bundle
from espalier.nas.architecture import Architecture
from espalier.nas.checkpoint import load_weights
from espalier.recipes.engine.context import Context
from espalier.recipes.records.networks import ExportedFile


def run(context: Context) -> dict[str, ExportedFile]:
    """Exports the networks of the stage `train` into their folders, checked against torch."""
    outputs = {}
    splits = context.splits
    networks = context.stages.networks
    for network in context.track(networks, "export", len(networks)):
        architecture = network.architecture
        folder = context.run.architecture(architecture)
        facts, finish = {}, None
        if context.deployment is not None:
            facts = context.deployment.facts(architecture)
            finish = partial(context.deployment.quantize, architecture)
        exported = write_bundle(
            folder,
            trained_network(context, architecture),
            input_shape=splits.image_shape,
            classes=splits.classes,
            mean=splits.mean,
            std=splits.std,
            facts={
                "architecture": network.notation,
                **facts,
                f"accuracy on the {network.images} images it was selected by": f"{network.accuracy:.1%}",
            },
            finish=finish,
        )
        outputs[network.id] = ExportedFile(
            exporter=exported.exporter,
            fallback_reason=exported.fallback_reason,
            opset=exported.opset,
            size_bytes=exported.size_bytes,
            max_abs_error=exported.parity.max_abs_error,
            tolerance=exported.parity.tolerance,
        )
    return outputs


def trained_network(context: Context, architecture: Architecture) -> GraphModule:
    """The network of an architecture with the weights of the stage `train`, on the CPU."""
    network = context.space.build(architecture)
    load_weights(context.run.architecture(architecture) / "model.safetensors", network)
    network.eval()
    return network
