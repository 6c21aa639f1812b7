"""How large a run is: its images, its space, the steps of its trainings, and the memory that they need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from espalier.nas.data.sources.fit import require_memory
from espalier.nas.training import TrainSettings
from espalier.recipes.engine.assemble import Assembly
from espalier.recipes.engine.spaces import SpaceFactory
from espalier.supernets.trainer import SupernetTraining

FLOAT_BYTES = 4
PROBE_IMAGES = 2
"""Images of the step whose memory is counted; batch norms need two."""


def check_space_memory(spaces: SpaceFactory) -> None:
    """Raises UserError where the weights of a space do not fit into memory; they are counted without being allocated.

    A training holds them, their gradients and the optimiser's first moment. Own spaces are not built twice.
    """
    if spaces.is_own:
        return
    with torch.device("meta"):
        weights = weight_bytes(spaces())
    require_memory(3 * weights, "the weights of the space, their gradients and the optimiser need", where="space")


def check_batch_memory(assembly: Assembly) -> None:
    """Raises UserError where a batch that is timed, or the step of a training, does not fit into memory."""
    channels, height, width = assembly.splits.image_shape
    timed = assembly.recipe.profile.batch * channels * height * width * FLOAT_BYTES
    require_memory(2 * timed, f"{assembly.recipe.profile.batch:,} images in one run need", where="profile.batch")
    if assembly.supernets is not None and assembly.device.type == "cpu":
        require_memory(training_bytes(assembly), "a step of the supernet's training needs", where="supernet.batch_size")


def weight_bytes(network: nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())


def training_bytes(assembly: Assembly) -> int:
    """Bytes of a step of the supernet's training: of weights, gradients, the optimiser, and what backward needs.

    The last is counted, not modelled: what autograd keeps for a batch of two, times the batch. It is that of one
    random path, or of the whole mixture, as the strategy trains.
    """
    assert assembly.supernets is not None
    settings = assembly.supernets.settings
    probe = replace(assembly.supernets, settings=settings.model_copy(update={"batch_size": PROBE_IMAGES, "stop": None}))
    with torch.random.fork_rng():
        training = probe.training()
        kept = _kept_bytes(training)
    copies = 3 + (settings.ema_decay is not None)
    batch = min(settings.batch_size, len(assembly.splits.train))
    return copies * weight_bytes(training.model) + kept * batch // PROBE_IMAGES


def _kept_bytes(training: SupernetTraining) -> int:
    """Bytes of different tensors that autograd keeps for a batch of two; the weights are not among them."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in training.model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    training.strategy.begin_epoch(0, training.settings.epochs)
    x, y = next(iter(training.batches))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        training.backward(x, y)
    return sum(kept.values())


def sizes(assembly: Assembly) -> dict[str, Any]:
    """What a dry run says about the size of a run, beside its stages.

    Returns:
        `images` by split, `space` (architectures and parameters), `steps` by stage, `memory_bytes`.
    """
    splits, recipe = assembly.splits, assembly.recipe
    images = {part: len(getattr(splits, part)) for part in ("train", "architecture", "selection")}
    images["test"] = len(splits.final_test())
    steps: dict[str, int] = {}
    if recipe.supernet is not None:
        few_shot = recipe.supernet.few_shot
        epochs = recipe.supernet.epochs if few_shot is None else few_shot.total_epochs
        steps["supernet"] = epochs * _steps(images["train"], recipe.supernet)
    if recipe.train is not None:
        each = recipe.train.epochs * _steps(images["train"] + images["architecture"], recipe.train)
        steps["train (each network)"] = each
    memory = {"images": splits_bytes(assembly)}
    if assembly.supernets is not None:
        memory["supernet step"] = training_bytes(assembly)
    space = {"architectures": assembly.space.size, "parameters": _parameters(assembly)}
    return {"images": images, "space": space, "steps": steps, "memory_bytes": memory}


def splits_bytes(assembly: Assembly) -> int:
    """Bytes of the pixels of all images."""
    splits = assembly.splits
    parts = (splits.train, splits.architecture, splits.selection, splits.final_test())
    return sum(part.pixels.numel() * part.pixels.element_size() for part in parts)


def _parameters(assembly: Assembly) -> int:
    """Of the whole space, all options together."""
    return sum(parameter.numel() for parameter in assembly.space.parameters())


def _steps(images: int, settings: TrainSettings) -> int:
    """In an epoch: full batches only, and one smaller batch where there are fewer images."""
    return max(1, images // settings.batch_size)
