"""Removal of channels, attention heads and blocks: which go, by what importance, and to which target."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from espalier.export.onnx import export_onnx
from espalier.nas.checkpoint import load_weights, save_weights
from espalier.nas.copying import copied
from espalier.nas.cost.count import count
from espalier.nas.errors import UserError
from espalier.nas.files import read_json, write_json
from espalier.nas.network_inputs import with_training_outputs, without_view
from espalier.nas.scratch import ScratchFolder
from espalier.nas.task import batch_loss
from espalier.pruning.mfac.obs import saliencies
from espalier.pruning.pruned_model import Plan
from espalier.pruning.structure import apply_structure, structure_of
from espalier.pruning.structured import (
    BatchNormScale,
    Importance,
    Magnitude,
    Random,
    Saliency,
    Target,
    Taylor,
    groups_of,
    mean_gradients,
    shrink,
)
from espalier.pruning.weights import prunable_weights
from espalier.recipes.commands.progress import announce
from espalier.recipes.commands.prune.training import Phases, on_accelerator
from espalier.recipes.config.devices import open_device
from espalier.recipes.config.options import OwnSettings, given_options
from espalier.recipes.config.prune_settings import PruneSettings, StructuredSettings
from espalier.recipes.config.registry import IMPORTANCES
from espalier.recipes.config.roles import load, make
from espalier.recipes.inputs.task_images import PROBED, TaskImages, check_training
from espalier.recipes.inputs.without_data import WithoutData, has_training_outputs, inputs_of, some_batch, traced

GRADIENT_IMAGES = 1024
"""Training images whose mean gradient Taylor's importance takes."""
GRADIENT_BATCH = 64
SEARCH_SECONDS = 0.3
"""Time budget for the timed runs of one network while a latency is searched for."""


@dataclass(frozen=True)
class Smaller:
    """A network from which something was removed.

    Attributes:
        network: on the CPU.
        groups: what became of each, as JSON.
    """

    network: nn.Module
    groups: tuple[dict[str, Any], ...]


def groups(settings: PruneSettings, dense: nn.Module, images: TaskImages) -> list[dict[str, Any]]:
    """What can be removed from the network, and what stays dense and why."""
    return [group.as_data() for group in groups_of(*_whole(dense, images), **_options(settings))]


def smaller(settings: PruneSettings, dense: nn.Module, phases: Phases) -> Smaller:
    """The dense network without what is least important, so that the target is met; resumed, it is read again.

    Raises:
        UserError: the network cannot be traced, or the target cannot be met.
    """
    record, weights = (phases.folder / "checkpoints" / name for name in ("smaller.json", "smaller.safetensors"))
    if record.exists():
        found = read_json(record)
        network = copied(dense)
        apply_structure(network, found["structure"])
        load_weights(weights, network)
        return Smaller(network, tuple(found["groups"]))
    shrunk = shrink(
        *_whole(dense, phases.images),
        _target(settings, dense, phases),
        importance=_importance(settings, dense, phases),
        **_options(settings),
    )
    rows = [group.as_data() for group in shrunk.groups]
    network = without_view(shrunk.model)
    _check_still_trained(settings, network, phases.images)
    save_weights(weights, network)
    write_json(record, {"structure": shrunk.structure, "groups": rows})
    kept_dense = [group.name for group in shrunk.groups if group.dense_because is not None]
    announce(f"{settings.goal}: {shrunk.before:.4g} -> {shrunk.after:.4g} ({shrunk.share:.3f} of it)")
    if shrunk.after_unrounded is not None:
        share = shrunk.after_unrounded / shrunk.before
        announce(
            f"more was removed than asked for, since widths are multiples of {settings.method.round_to}: "
            f"method.round_to=1 would leave {share:.3f}"
        )
    announce(f"{len(rows) - len(kept_dense)} groups can shrink, {len(kept_dense)} stay dense (see plan.json)")
    return Smaller(network, tuple(rows))


def _whole(network: nn.Module, images: TaskImages) -> tuple[nn.Module, tuple[int, ...]]:
    """The network with every layer that runs in evaluation or in training, and the shape of its one float input."""
    one_input, shape = traced(network, images)
    if not isinstance(images, WithoutData) and has_training_outputs(network, shape):
        return with_training_outputs(network), shape
    return one_input, shape


def _check_still_trained(settings: PruneSettings, network: nn.Module, images: TaskImages) -> None:
    """Raises UserError if layers that only run in training mode do not fit the smaller network."""
    batch = some_batch(images, PROBED) if settings.train.epochs else None
    if batch is None:
        return
    try:
        check_training(network, images.task, batch)
    except UserError as error:
        problem = (
            f"has layers that only run in training and cannot be made to fit: {error.problem}; exclude what they read"
        )
        raise UserError("model", problem, code="unsupported") from error


def structure_from(plan: Plan, network: nn.Module) -> dict[str, dict[str, Any]]:
    """What differs from the fresh dense network of a plan, however often it has been made smaller."""
    return structure_of(plan.dense_factory()(), network)


def _options(settings: PruneSettings) -> dict[str, Any]:
    method: StructuredSettings = settings.method
    return {
        "round_to": method.round_to,
        "least": method.least,
        "depth": method.depth,
        "include": settings.include,
        "exclude": settings.exclude,
    }


def _target(settings: PruneSettings, dense: nn.Module, phases: Phases) -> Target:
    goal, (whole, shape) = settings.goal, _whole(dense, phases.images)
    if goal.quantity == "latency_ms":
        return Target(_latency_ms(settings, phases), most=goal.value)
    assert goal.quantity != "sparsity"
    if goal.quantity == "macs" and hasattr(whole, "is_view") and not isinstance(phases.images, WithoutData):
        return Target(lambda network: count(without_view(network), shape).macs, share=goal.value)  # as it is deployed
    return Target(goal.quantity, share=goal.value)


def _latency_ms(settings: PruneSettings, phases: Phases) -> Callable[[nn.Module], float]:
    """Measures the upper bound of a network's median latency, so that a limit is met with confidence."""
    profile = settings.profile
    device = open_device(profile.device, where="profile.device")
    spec = profile.spec(seconds=SEARCH_SECONDS)

    def upper_bound(network: nn.Module) -> float:
        with ScratchFolder(prefix=".latency-", dir=phases.folder.path) as folder:
            path = Path(folder) / "model.onnx"
            export_onnx(without_view(network), inputs_of(phases.images), path, exporter="torchscript")
            return float(device.measure(path, spec).latency.ci95[1])

    return upper_bound


def _importance(settings: PruneSettings, dense: nn.Module, phases: Phases) -> Importance:
    images, generator = phases.images, phases.generator("importance")
    kind = settings.method.importance
    if kind == "magnitude":
        return Magnitude()
    if kind == "batch_norm":
        return BatchNormScale()
    if kind == "random":
        return Random(generator)
    network = on_accelerator(copied(dense))
    if isinstance(kind, OwnSettings):
        return _own_importance(kind, network, images, generator)
    if kind == "mfac":
        return Saliency(_saliencies(network, images, generator))
    return Taylor(_gradients(network, images, generator))


def _own_importance(
    settings: OwnSettings, network: nn.Module, images: TaskImages, generator: torch.Generator
) -> Importance:
    """An importance of the user's, with what it asks for by the names of its arguments."""
    takes = inspect.signature(load(IMPORTANCES, settings.name, where="method.importance")).parameters
    given: dict[str, Any] = given_options(settings)
    if "generator" in takes:
        given["generator"] = generator
    if "gradients" in takes:
        given["gradients"] = _gradients(network, images, generator)
    if "saliencies" in takes:
        given["saliencies"] = _saliencies(network, images, generator)
    made = make(IMPORTANCES, settings.name, where="method.importance", **given)
    if not callable(made) or not isinstance(getattr(made, "additive", None), bool):
        problem = "is not an importance: it needs an attribute additive, True or False, and a method __call__"
        raise UserError(settings.name, problem, code="user_code")
    importance: Importance = made
    return importance


def _saliencies(network: nn.Module, images: TaskImages, generator: torch.Generator) -> dict[str, Tensor]:
    batches = images.plain(GRADIENT_BATCH, count=GRADIENT_IMAGES, generator=generator)
    return _on_cpu(saliencies(network, images.task, batches, prunable_weights(network)))


def _gradients(network: nn.Module, images: TaskImages, generator: torch.Generator) -> dict[str, Tensor]:
    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return batch_loss(images.task, model, batch)[0]

    batches = images.plain(GRADIENT_BATCH, count=GRADIENT_IMAGES, generator=generator)
    return _on_cpu(mean_gradients(network, loss, batches))


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(torch.device("cpu")) for name, tensor in tensors.items()}
