"""One network to one checked ONNX file: what `espalier.export` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from espalier.export.onnx import Exported, export_onnx
from espalier.nas.checkpoint import load_weights
from espalier.nas.errors import UserError
from espalier.nas.models import in_float32, network_factory
from espalier.nas.network_inputs import Input, as_inputs

IMAGENET_CLASSES = 1000


def export_network(
    model: str | nn.Module,
    output: str | Path,
    *,
    input_shape: tuple[int, ...] | None = None,
    inputs: Sequence[Input | str] | None = None,
    classes: int = IMAGENET_CLASSES,
    weights: str | Path | None = None,
    pretrained: bool = False,
    seed: int = 0,
    exporter: Literal["auto", "dynamo", "torchscript"] = "auto",
) -> Exported:
    """Write a network to an ONNX file, which is checked against torch before it takes its place.

    The file has any batch. Its input is `input`, float32 `(batch, *input_shape)`, or those of `inputs` by their names.
    Its output is `logits`, or each tensor of the tuple or mapping that the network returns. It is in float32.

    Args:
        model: a module, which is left as it is, `timm:NAME` or `FILE.py:FUNCTION`.
        output: the file to write.
        input_shape: of the only input without the batch, such as `(channels, height, width)`.
        inputs: in its place, all inputs, such as `["ids:128:int64", "mask:128"]`.
        classes: outputs of a network of timm.
        weights: the weights of a network by name: `.safetensors`, `.npz`, `.pt` or `.pth`.
        pretrained: use timm's pretrained weights.
        seed: of the weights of a network by name that has neither.
        exporter: the torch exporter; `auto` uses the older one where the newer one fails.

    Raises:
        UserError: the network or its weights cannot be used.
        ExportError: it cannot be exported, or the file does not compute what torch computes.
    """
    if (input_shape is None) == (inputs is None):
        raise UserError("input_shape", "or inputs is required, and not both", code="missing")
    given = as_inputs(input_shape if inputs is None else inputs)  # type: ignore[arg-type]
    if isinstance(model, nn.Module):
        for argument, value in (("weights", weights), ("pretrained", pretrained or None)):
            if value is not None:
                raise UserError(argument, "cannot be combined with a module, which has its weights", code="conflict")
        return export_onnx(model, given, Path(output), exporter=exporter)
    channels, height, width = (1, 1, 1, *given[0].shape)[-3:]
    image_shape = (channels, height, width)
    make = network_factory(model, image_shape=image_shape, classes=classes, pretrained=pretrained)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = in_float32(make())
    if weights is not None:
        load_weights(Path(weights), network)
    return export_onnx(network, given, Path(output), exporter=exporter)
