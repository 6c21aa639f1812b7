"""Weights set to zero: how many in each layer, and which."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping

import torch
from torch import nn

from espalier.nas.cost.count import count
from espalier.nas.errors import UserError
from espalier.pruning.allocation import ALLOCATIONS
from espalier.pruning.allocation.choices import choices
from espalier.pruning.allocation.lgreco import best_within
from espalier.pruning.allocation.macs import layer_macs
from espalier.pruning.allocation.scored import saliency
from espalier.pruning.masks import zeros_at
from espalier.pruning.mfac.obs import saliencies
from espalier.pruning.patterns import Globally, Layerwise, NOfM, Pattern
from espalier.pruning.pruner import Pruner
from espalier.pruning.weights import Weights, prunable_weights
from espalier.recipes.config.options import given_options
from espalier.recipes.config.prune_settings import PruneSettings
from espalier.recipes.config.registry import PRUNERS
from espalier.recipes.config.roles import load, make
from espalier.recipes.inputs.task_images import TaskImages
from espalier.recipes.inputs.without_data import traced

ONE_SHOT = ("magnitude", "mfac")
"""Methods that choose without training; others take as many epochs for it as for the fine-tuning."""
PUBLISHED_ALLOCATION = {"issp": "uniform", "iht": "uniform", "growing": "uniform", "rigl": "erk"}
"""The allocation that each method was published with; the others rank all weights together."""
SALIENCY_BATCH = 32
"""Images whose mean gradient is one row of M-FAC's matrix, as published."""


def prune_epochs(settings: PruneSettings) -> int:
    """Epochs until the masks are fixed."""
    if settings.prune_epochs is not None:
        return settings.prune_epochs
    return 0 if settings.is_structured or settings.method.name in ONE_SHOT else settings.train.epochs


def chosen_weights(settings: PruneSettings, network: nn.Module) -> Weights:
    """The weights that may become zero."""
    return prunable_weights(network, include=settings.include, exclude=settings.exclude)


def pattern(settings: PruneSettings, network: nn.Module, images: TaskImages, generator: torch.Generator) -> Pattern:
    """How many weights are zero, and where.

    Raises:
        UserError: the target needs more zeros than there are weights to prune.
    """
    weights = chosen_weights(settings, network)
    if settings.pattern is not None:
        return NOfM(*map(int, settings.pattern.split(":")))
    goal = settings.goal
    allocation = settings.allocation or PUBLISHED_ALLOCATION.get(settings.method.name, "global")
    if goal.quantity == "macs":
        return Layerwise(_within_macs(settings, network, images, weights, generator))
    n = sum(weight.numel() for weight in weights.values())
    zeros = zeros_at(goal.value, n)
    if goal.quantity == "params":
        params = sum(p.numel() for p in network.parameters())
        zeros = math.ceil((1 - goal.value) * params - 1e-9)
    if zeros > n - len(weights):
        problem = f"{goal} needs {zeros:,} zeros, but only {n:,} weights in {len(weights)} layers are prunable"
        raise UserError("target", problem, code="infeasible")
    if allocation == "global":
        return Globally(zeros)
    sparsity = zeros / n
    if allocation == "obs":
        return Layerwise(saliency(weights, sparsity, _saliencies(settings, network, images, weights, generator)))
    return Layerwise(ALLOCATIONS[allocation](weights, sparsity))


def pruner(
    settings: PruneSettings,
    network: nn.Module,
    images: TaskImages,
    pattern: Pattern,
    *,
    iterations: int,
    generator: torch.Generator,
) -> Pruner:
    """The method, around the network's weights."""
    name = settings.method.name
    options = given_options(settings.method)
    takes = inspect.signature(load(PRUNERS, name, where="method.name")).parameters
    if "batches" in takes:  # a method that looks at images, such as M-FAC
        batches = images.plain(SALIENCY_BATCH, generator=generator)
        options |= {"model": network, "task": images.task, "batches": batches}
    weights = chosen_weights(settings, network)
    try:
        made: Pruner = make(PRUNERS, name, weights, pattern, where="method.name", iterations=iterations, **options)
    except UserError as error:
        if error.where not in options:
            raise
        raise error.below("method") from error
    return made


def _within_macs(
    settings: PruneSettings,
    network: nn.Module,
    images: TaskImages,
    weights: Weights,
    generator: torch.Generator,
) -> dict[str, int]:
    """The zeros with the least error whose multiply-accumulates, without zero weights, meet the target."""
    if settings.allocation not in (None, "lgreco", "obs"):
        raise UserError(
            "allocation", "a target in macs needs lgreco or obs", allowed=("lgreco", "obs"), code="conflict"
        )
    one_input, shape = traced(network, images)
    whole, macs = count(one_input, shape).macs, layer_macs(one_input, shape)
    prunable = sum(macs.get(name, 0.0) * weight.numel() for name, weight in weights.items())
    budget = settings.goal.value * whole - (whole - prunable)
    scores = _saliencies(settings, network, images, weights, generator) if settings.allocation == "obs" else None
    return best_within(choices(weights, macs={name: macs.get(name, 0.0) for name in weights}, scores=scores), budget)


def _saliencies(
    settings: PruneSettings,
    network: nn.Module,
    images: TaskImages,
    weights: Weights,
    generator: torch.Generator,
) -> Mapping[str, torch.Tensor]:
    return saliencies(network, images.task, images.plain(SALIENCY_BATCH, generator=generator), weights)
