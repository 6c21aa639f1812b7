"""A pruned network on disk: a plan in JSON and weights in safetensors, from which any process rebuilds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from espalier.nas.checkpoint import load_weights, save_weights
from espalier.nas.copying import unwrapped
from espalier.nas.data import Normalisation
from espalier.nas.errors import UserError
from espalier.nas.files import inside, read_json, write_bytes, write_json
from espalier.nas.models import network_factory
from espalier.nas.network_images import NetworkImages
from espalier.pruning.plan_check import check_outputs, checked_values
from espalier.pruning.structure import apply_structure

PLAN = "plan.json"
WEIGHTS = "model.safetensors"
SOURCE = "network.py"
FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """What was done to a network, as data; `load_pruned` needs the first five fields and `structure`.

    Attributes:
        factory: name of the dense network for `nas.models.network_factory`; a file lies in the plan's folder.
        image_shape: `(channels, height, width)` of one image.
        classes: names of the outputs; none for images.
        mean: of each channel of pixels in 0..1; the network takes `(pixels - mean) / std`.
        std: of each channel, likewise.
        structure: what was removed, as written by `espalier.pruning.structure`; empty if nothing was.
        zeros: the number of zeros in each pruned weight.
        settings: method, target and training, as requested.
        groups: the groups of channels that were considered, with their widths.
    """

    factory: str
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    structure: Mapping[str, Any] = field(default_factory=dict)
    zeros: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    groups: tuple[Mapping[str, Any], ...] = ()

    @property
    def images(self) -> NetworkImages:
        """The images that the network takes; nothing is known where its inputs are no images."""
        if self.settings.get("inputs") is not None:
            return NetworkImages()
        return NetworkImages(self.classes, Normalisation(self.mean, self.std), self.image_shape)

    def dense_factory(self) -> Callable[[], nn.Module]:
        """Makes the dense network with fresh weights, in float32.

        Raises:
            UserError: its file is missing, or no longer makes a network.
        """
        make = network_factory(self.factory, image_shape=self.image_shape, classes=len(self.classes))
        return lambda: unwrapped(make()).float()


def save_pruned(folder: Path, model: nn.Module, plan: Plan) -> None:
    """Write the plan and the weights of `model` into `folder`, with a copy of the file that defines the dense network.

    Raises:
        CannotWrite: the folder cannot be written.
    """
    document = {"format": FORMAT, **vars(plan)}
    kind, _, name = plan.factory.rpartition(":")
    if kind.endswith(".py"):
        write_bytes(folder / SOURCE, Path(kind).read_bytes())
        document["factory"] = f"{SOURCE}:{name}"
    save_weights(folder / WEIGHTS, model, metadata=plan.images.to_metadata())
    write_json(folder / PLAN, document)


def read_plan(folder: Path) -> Plan:
    """The plan in a folder, with the path of the file that defines the dense network resolved.

    Raises:
        UserError: there is none, or it is damaged or has another format; the key is named.
    """
    path = folder / PLAN
    document = read_json(path)
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
        raise UserError(str(path), f"is not a pruning plan of format {FORMAT}", code="unreadable")
    known = Plan.__dataclass_fields__
    for key in [*known, *document]:
        if key not in document or key not in known:
            if key in known:
                raise UserError(f"{path}: {key}", "is missing", code="missing")
            raise UserError(f"{path}: {key}", "is not a key of a plan", allowed=known, given=key)
    document = checked_values(document, path)
    kind, _, name = document["factory"].rpartition(":")
    if kind.endswith(".py"):
        document["factory"] = f"{inside(folder, kind, where=f'{path}: factory')}:{name}"
    return Plan(**document)


def load_pruned(folder: Path | str) -> nn.Module:
    """The pruned network in a folder that `nas prune` wrote, in evaluation mode, on the CPU.

    Builds the plan's network with `network_factory`, removes what the plan removes, and loads the weights, which must
    have the zeros that the plan lists.

    Raises:
        UserError: a file is missing or damaged, or the files do not belong together; the first difference is named.
    """
    folder = Path(folder)
    plan = read_plan(folder)
    model = plan.dense_factory()().eval()  # reading the weights of a spectral norm in training mode changes them
    apply_structure(model, plan.structure)
    load_weights(folder / WEIGHTS, model)
    weights = dict(model.named_parameters())
    for name, zeros in plan.zeros.items():
        if name not in weights or int((weights[name] == 0).sum()) < zeros:
            problem = f"{name} has fewer zeros than the {zeros} in the plan"
            raise UserError(str(folder / WEIGHTS), problem, code="mismatch")
    if plan.settings.get("inputs") is None:  # images, which the plan describes
        check_outputs(model, plan.image_shape, len(plan.classes), folder / PLAN)
    return model
