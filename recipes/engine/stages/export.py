"""Write each trained network as ONNX, safetensors, source and a model card."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from espalier.export.bundle import write_bundle
from espalier.export.parity import OWN_IMAGES
from espalier.nas.data import BatchFactory, Splits
from espalier.nas.progress import Track
from espalier.nas.run import RunFolder
from espalier.nas.space import SearchSpace
from espalier.recipes.engine.deployment import Deployment
from espalier.recipes.engine.trained_network import trained_network
from espalier.recipes.records.networks import ExportedFile, TrainedNetwork


def run(
    networks: Sequence[TrainedNetwork],
    *,
    space: SearchSpace,
    splits: Splits,
    deployment: Deployment | None,
    run: RunFolder,
    track: Track,
) -> dict[str, ExportedFile]:
    """Exports networks into their folders, checked against torch.

    Args:
        networks: trained alone.
        space: builds them.
        splits: for the shape, the classes and the normalisation of images.
        deployment: quantises the files where precision is searched.
        run: the run folder.
        track: shows progress.

    Returns:
        What was written, by the network's id.
    """
    some = splits.train.sample(OWN_IMAGES, torch.Generator().manual_seed(0))
    images = BatchFactory(splits.normalisation).single(some)[0].contiguous()
    files = {}
    for network in track(networks, "export", len(networks)):
        architecture = network.architecture
        facts, finish = {}, None
        if deployment is not None:
            facts = deployment.facts(architecture)
            finish = partial(deployment.quantize, architecture)
        exported = write_bundle(
            run.architecture(architecture),
            trained_network(architecture, space, run),
            input_shape=splits.image_shape,
            classes=splits.classes,
            mean=splits.normalisation.mean,
            std=splits.normalisation.std,
            facts={
                "architecture": network.notation,
                **facts,
                f"accuracy on the {network.images} images it was selected by": f"{network.accuracy:.1%}",
            },
            images=images,
            finish=finish,
        )
        files[network.id] = ExportedFile(
            exporter=exported.exporter,
            fallback_reason=exported.fallback_reason,
            opset=exported.opset,
            size_bytes=exported.size_bytes,
            max_abs_error=exported.parity.max_abs_error,
            tolerance=exported.parity.tolerance,
        )
    return files
