"""The network to prune: which one, how it is made again, with which weights, for which images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from espalier.export.bundle import CLASS_NAME
from espalier.nas.checkpoint import load_weights
from espalier.nas.errors import UserError
from espalier.nas.models import network_factory
from espalier.nas.super_resolution.networks import NETWORKS, on_luma, with_scale
from espalier.pruning.pruned_model import PLAN, WEIGHTS, load_pruned, read_plan

FORMS = (
    "timm:NAME, FILE.py:FUNCTION, with --scale edsr, swinir or vdsr, the folder of a run's network, or one that "
    "nas prune wrote"
)


@dataclass(frozen=True)
class Given:
    """Where a network comes from; `make` it once the images are known.

    Attributes:
        factory: as `espalier.nas.models.network_factory` takes it.
        weights: a file of its weights; None for fresh ones.
        pretrained: take timm's own weights.
        pruned: the folder of `nas prune` to go on from.
        mean, std: that its images are normalised with; None where nobody says.
    """

    factory: str
    weights: Path | None = None
    pretrained: bool = False
    pruned: Path | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether the network has learnt nothing yet."""
        return self.weights is None and self.pruned is None and not self.pretrained

    def make(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        """The network with its weights, on the CPU.

        Raises:
            UserError: it cannot be made for these images and classes, or its weights do not fit.
        """
        if self.pruned is not None:
            return load_pruned(self.pruned)
        network = network_factory(self.factory, image_shape=image_shape, classes=classes, pretrained=self.pretrained)()
        if self.weights is not None:
            load_weights(self.weights, network)
        return network

    @property
    def on_luma(self) -> bool:
        """Whether a network of super-resolution sharpens the Y of an image that is enlarged already."""
        return on_luma(network_factory(self.factory, image_shape=(3, 0, 0), classes=0)())


def given_network(
    text: str, *, weights: Path | None = None, pretrained: bool = False, scale: int | None = None
) -> Given:
    """The network that the argument MODEL means.

    Args:
        text: one of `FORMS`, or the file of weights in such a folder.
        weights: a file of weights for timm's or a user's network.
        pretrained: take timm's own.
        scale: where it is a network of super-resolution.

    Raises:
        UserError: none of these, or weights given twice.
    """
    path = Path(text)
    enlarges = text.partition(":")[0] in NETWORKS
    if (":" in text or enlarges) and not path.exists():
        if weights is not None and pretrained:
            raise UserError("--pretrained", "the weights are given by --weights already")
        if enlarges:
            if scale is None:
                raise UserError("--scale", f"is missing: {text.partition(':')[0]} enlarges images")
            text = with_scale(text, scale)
        mean, std = _normalisation_of_timm(text) if pretrained and text.startswith("timm:") else (None, None)
        return Given(_absolute(text), weights=weights, pretrained=pretrained, mean=mean, std=std)
    folder = path if path.is_dir() else path.parent
    for option, value in (("--weights", weights), ("--pretrained", pretrained or None)):
        if value is not None:
            raise UserError(option, f"{text} has its own weights")
    if path.is_dir() or path.suffix == ".safetensors":
        if (folder / PLAN).is_file():
            plan = read_plan(folder)
            if (scale is None) != bool(plan.classes):
                problem = (
                    "is given, and the network classifies images" if plan.classes else "is missing, as it was given"
                )
                raise UserError("--scale", f"{problem} ({folder})")
            return Given(plan.factory, pruned=folder, mean=plan.mean, std=plan.std)
        if (folder / WEIGHTS).is_file() and (folder / "model.py").is_file():
            metadata = _metadata(folder / WEIGHTS)
            mean, std = (tuple(metadata[key]) if key in metadata else None for key in ("mean", "std"))
            factory = f"{(folder / 'model.py').resolve()}:{CLASS_NAME}"
            return Given(factory, weights=folder / WEIGHTS, mean=mean, std=std)
    raise UserError("MODEL", f"{text} is no network: {FORMS}")


def _absolute(text: str) -> str:
    kind, _, name = text.rpartition(":")
    return f"{Path(kind).resolve()}:{name}" if kind.endswith(".py") else text


def _normalisation_of_timm(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    from espalier.nas.models import timm_normalisation

    return timm_normalisation(text.rpartition(":")[2])


def _metadata(path: Path) -> dict[str, Any]:
    """What a run writes into the head of a network's weights."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            text = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(str(path), f"cannot be read as safetensors ({error})") from error
    return {key: json.loads(value) for key, value in text.items() if key in ("mean", "std")}
