"""A given network: which one, how it is made again, and with which weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from espalier.export.bundle import CLASS_NAME
from espalier.nas.checkpoint import load_weights
from espalier.nas.copying import copied, unwrapped
from espalier.nas.data import Normalisation
from espalier.nas.errors import UserError
from espalier.nas.models import in_float32, network_factory
from espalier.nas.network_images import NetworkImages, weights_metadata
from espalier.nas.network_inputs import Input, as_inputs
from espalier.nas.super_resolution.networks import NETWORKS, on_luma, with_scale
from espalier.pruning.pruned_model import PLAN, WEIGHTS, load_pruned, read_plan

FORMS = (
    "timm:NAME, FILE.py:FUNCTION, the folder of a network that a run or nas prune wrote, or, with a scale, edsr, "
    "swinir or vdsr"
)


@dataclass(frozen=True)
class ModelSource:
    """Where a network comes from. It is made once the images are known.

    Attributes:
        factory: makes it, see `espalier.nas.models.network_factory`.
        weights: the file of its weights; None for fresh ones.
        pretrained: whether it has timm's own weights.
        pruned: the folder of a network that `nas prune` wrote.
        normalisation: of its images, pixels in 0..1; None where it is not known.
        classes: names of its outputs; none where they are not known.
    """

    factory: str
    weights: Path | None = None
    pretrained: bool = False
    pruned: Path | None = None
    normalisation: Normalisation | None = None
    classes: tuple[str, ...] = ()

    @property
    def is_fresh(self) -> bool:
        """Whether the network has not been trained."""
        return self.weights is None and self.pruned is None and not self.pretrained

    def make(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        """The network with its weights, on the CPU and in float32.

        Raises:
            UserError: it cannot be made for these images and classes, or its weights do not fit.
        """
        if self.pruned is not None:
            return load_pruned(self.pruned)
        make = network_factory(self.factory, image_shape=image_shape, classes=classes, pretrained=self.pretrained)
        network = in_float32(unwrapped(make()))  # before its weights are read, which half precision would round
        if self.weights is not None:
            load_weights(self.weights, network)
        return network

    @property
    def on_luma(self) -> bool:
        """Whether a super-resolution network works on the Y channel of an image that is already enlarged."""
        return on_luma(network_factory(self.factory, image_shape=(3, 0, 0), classes=0)())


@dataclass(frozen=True)
class ModelObject:
    """A network that exists already, as a Python object.

    Attributes:
        network: left as it is.
    """

    network: nn.Module
    is_fresh = False
    normalisation = None
    classes = ()

    def make(self, image_shape: tuple[int, int, int], classes: int) -> nn.Module:
        """A copy of the network, on the CPU and in float32."""
        return in_float32(copied(self.network).cpu())


def model_source(
    model: str | Path, *, weights: str | Path | None = None, pretrained: bool = False, scale: int | None = None
) -> ModelSource:
    """The network that the argument `model` of a command names.

    Args:
        model: one of `FORMS`, or the file of weights in such a folder.
        weights: a file of weights for timm's or a user's network.
        pretrained: take timm's own weights.
        scale: the factor of a super-resolution network.

    Raises:
        UserError: none of these, or weights given twice.
    """
    text, path = str(model), Path(model)
    enlarges = text.partition(":")[0] in NETWORKS
    if (":" in text or enlarges) and not path.exists():
        return _made(text, None if weights is None else Path(weights), pretrained, scale)
    for option, value in (("weights", weights), ("pretrained", pretrained or None)):
        if value is not None:
            raise UserError(option, f"{text} has its own weights", code="conflict")
    found = _written(path, scale) if path.is_dir() or path.suffix == ".safetensors" else None
    if found is None:
        raise UserError("model", f"{text} is not a network: {FORMS}")
    return found


def described_inputs(folder: Path) -> tuple[Input, ...] | None:
    """The inputs of a network that `nas prune` wrote into a folder without data; None for others."""
    if not (folder / PLAN).is_file():
        return None
    found = read_plan(folder).settings.get("inputs")
    return None if found is None else as_inputs(found)


def _made(text: str, weights: Path | None, pretrained: bool, scale: int | None) -> ModelSource:
    """A network of timm, of a user's file, or of super-resolution."""
    if weights is not None and pretrained:
        raise UserError("pretrained", f"the weights are already given by {weights}", code="conflict")
    name = text.partition(":")[0]
    if name in NETWORKS:
        if scale is None:
            raise UserError("scale", f"is required: {name} enlarges images", code="missing")
        text = with_scale(text, scale)
    known = NetworkImages()
    if pretrained and text.startswith("timm:"):
        known = NetworkImages(normalisation=_normalisation_of_timm(text))
    elif weights is not None and weights.suffix == ".safetensors" and weights.is_file():
        known = weights_metadata(weights)
    return ModelSource(
        _absolute(text),
        weights=weights,
        pretrained=pretrained,
        normalisation=known.normalisation,
        classes=known.classes,
    )


def _written(path: Path, scale: int | None) -> ModelSource | None:
    """The network in a folder that `nas prune` or a run wrote; None where there is none."""
    folder = path if path.is_dir() else path.parent
    if (folder / PLAN).is_file():
        plan = read_plan(folder)
        if scale is not None and plan.classes:
            raise UserError("scale", f"the network in {folder} classifies images", code="conflict")
        if scale is None and not plan.classes:
            raise UserError("scale", f"is required: the network in {folder} enlarges images", code="missing")
        normalisation = Normalisation(plan.mean, plan.std)
        return ModelSource(plan.factory, pruned=folder, normalisation=normalisation, classes=plan.classes)
    if (folder / WEIGHTS).is_file() and (folder / "model.py").is_file():
        known = weights_metadata(folder / WEIGHTS)
        factory = f"{(folder / 'model.py').resolve()}:{CLASS_NAME}"
        return ModelSource(factory, weights=folder / WEIGHTS, normalisation=known.normalisation, classes=known.classes)
    return None


def _absolute(text: str) -> str:
    kind, _, name = text.rpartition(":")
    return f"{Path(kind).resolve()}:{name}" if kind.endswith(".py") else text


def _normalisation_of_timm(text: str) -> Normalisation:
    from espalier.nas.models import timm_normalisation

    return Normalisation(*timm_normalisation(text.rpartition(":")[2]))
