"""A network ready to be published: weights, source, ONNX and a model card in one folder."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import fx

from espalier.export.card import model_card
from espalier.export.errors import ExportError
from espalier.export.metadata import write_metadata
from espalier.export.onnx import Exported, export_onnx
from espalier.export.source import check_source, python_source
from espalier.nas.cost.count import count
from espalier.nas.data import Normalisation
from espalier.nas.errors import UserError
from espalier.nas.files import atomic_path, write_text
from espalier.nas.network_images import NetworkImages

CLASS_NAME = "Network"


def write_bundle(
    folder: Path,
    model: fx.GraphModule,
    *,
    input_shape: tuple[int, int, int],
    classes: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    facts: Mapping[str, Any],
    images: torch.Tensor | None = None,
    finish: Callable[[Path], None] | None = None,
) -> Exported:
    """Write `model.safetensors`, `model.py`, `model.onnx` and `README.md` into `folder`, each of them atomically.

    Nothing is written unless the source rebuilds the network exactly.

    Args:
        folder: where the files are written.
        model: the network; left as it is.
        input_shape: `(C, H, W)` of one image.
        classes: names of the outputs, in order.
        mean: of each channel of images divided by 255; the network takes `(image / 255 - mean) / std`.
        std: of each channel, likewise.
        facts: measured values (accuracy, ...) to list on the card.
        images: normalised `(n, C, H, W)`, on which the ONNX file must agree with torch as well.
        finish: rewrites the checked ONNX file in place, in fewer bits.

    Returns:
        The ONNX file, with its parity before `finish`.

    Raises:
        UserError: `classes`, `mean` or `std` do not fit the network.
        ExportError: the network cannot be written as source or as ONNX (see `python_source`, `export_onnx`).
    """
    _check_normalisation(input_shape[0], mean, std)
    plain = copy.deepcopy(model).cpu().eval()
    example = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
    _check_classes(plain, example, classes)
    source = python_source(plain, CLASS_NAME)
    check_source(source, CLASS_NAME, plain, example)

    exported = export_onnx(plain, input_shape, folder / "model.onnx", images=images)
    if finish is not None:
        finish(exported.path)
    known = NetworkImages(classes, Normalisation(mean, std), input_shape)
    write_metadata(exported.path, known)
    exported = replace(exported, size_bytes=exported.path.stat().st_size)
    metadata = {"input_shape": input_shape, "classes": classes, "mean": mean, "std": std}
    _write_weights(folder / "model.safetensors", plain, known)
    write_text(folder / "model.py", source)
    card = model_card(CLASS_NAME, metadata, {**count(plain, input_shape).__dict__, **facts}, exported)
    write_text(folder / "README.md", card)
    return exported


def _check_normalisation(channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels or not all(math.isfinite(value) for value in values):
            problem = f"is {values}, must be {channels} finite numbers, one for each channel"
            raise UserError(name, problem)
    if min(std) <= 0:
        raise UserError("std", f"is {std}, must be above 0", code="out_of_range")


def _check_classes(model: fx.GraphModule, example: torch.Tensor, classes: tuple[str, ...]) -> None:
    with torch.no_grad():
        shape = tuple(model(example).shape)
    if shape != (len(example), len(classes)):
        problem = f"has {len(classes)} names, but the network's logits have shape (batch, {shape[1:]})"
        raise UserError("classes", problem, code="mismatch")


def _write_weights(path: Path, model: fx.GraphModule, images: NetworkImages) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Tensors that share memory are written separately, as the source declares them.
    weights = {key: tensor.detach().clone().contiguous() for key, tensor in model.state_dict().items()}
    text = {"format": "pt"} | images.to_metadata()
    try:
        with atomic_path(path) as temporary:
            save_file(weights, temporary, metadata=text)
    except SafetensorError as error:
        raise ExportError(str(path), f"weights cannot be written ({error})", code="not_writable") from error
