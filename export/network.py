"""One network to one checked ONNX file: what `espalier.export` does."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from espalier.export.onnx import Exported, export_onnx
from espalier.nas.checkpoint import load_weights
from espalier.nas.errors import UserError
from espalier.nas.models import network_factory

IMAGENET_CLASSES = 1000


def export_network(
    model: str | nn.Module,
    output: str | Path,
    *,
    input_shape: tuple[int, int, int],
    classes: int = IMAGENET_CLASSES,
    weights: str | Path | None = None,
    pretrained: bool = False,
    seed: int = 0,
    exporter: Literal["auto", "dynamo", "torchscript"] = "auto",
) -> Exported:
    """Write a network to an ONNX file, which is checked against torch before it takes its place.

    The file has one input `input`, float32 `(batch, channels, height, width)` with any batch, and one output `logits`.

    Args:
        model: a module, which is left as it is, `timm:NAME` or `FILE.py:FUNCTION`.
        output: the file to write.
        input_shape: `(channels, height, width)` of one image.
        classes: outputs of a network of timm.
        weights: the weights of a network by name: `.safetensors`, `.npz`, `.pt` or `.pth`.
        pretrained: use timm's pretrained weights.
        seed: of the weights of a network by name that has neither.
        exporter: the torch exporter; `auto` uses the older one where the newer one fails.

    Raises:
        UserError: the network or its weights cannot be used.
        ExportError: it cannot be exported, or the file does not compute what torch computes.
    """
    if isinstance(model, nn.Module):
        for argument, value in (("weights", weights), ("pretrained", pretrained or None)):
            if value is not None:
                raise UserError(argument, "cannot be combined with a module, which has its weights", code="conflict")
        return export_onnx(model, input_shape, Path(output), exporter=exporter)
    make = network_factory(model, image_shape=input_shape, classes=classes, pretrained=pretrained)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = make()
    if weights is not None:
        load_weights(Path(weights), network)
    return export_onnx(network, input_shape, Path(output), exporter=exporter)
