"""What a pruning would do, before anything is trained or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from espalier.pruning.masks import zeros_in
from espalier.recipes.commands.prune import sparse
from espalier.recipes.commands.prune.structured import groups
from espalier.recipes.commands.prune.training import on_accelerator
from espalier.recipes.config.prune_settings import PruneSettings
from espalier.recipes.inputs.task_images import TaskImages


@dataclass(frozen=True)
class LayerZeros:
    """A weight, and how many of its numbers would be zero.

    Attributes:
        weight: its name.
        shape: of the tensor.
        weights: how many numbers it has.
        zeros: how many would be zero.
    """

    weight: str
    shape: Sequence[int]
    weights: int
    zeros: int


@dataclass(frozen=True)
class SparsePreview:
    """Which weights would be zero.

    Attributes:
        target: what is asked for.
        weights: how many may be zero.
        zeros: how many would be.
        layers: each weight.
    """

    target: str
    weights: int
    zeros: int
    layers: Sequence[LayerZeros]

    def to_dict(self) -> dict[str, Any]:
        """As `nas prune --dry-run --json` prints it."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{row.weight:40} {'x'.join(map(str, row.shape)):>16} {row.zeros:>10,} of {row.weights:>10,} "
            f"({row.zeros / row.weights:.2%})"
            for row in self.layers
        ]
        return "\n".join([*lines, f"{self.zeros:,} of {self.weights:,} weights would be zero, target {self.target}"])


@dataclass(frozen=True)
class StructuredPreview:
    """Which groups of channels, heads and blocks can shrink.

    Attributes:
        target: what is asked for.
        groups: as `espalier.pruning.structured` describes each.
    """

    target: str
    groups: Sequence[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """As `nas prune --dry-run --json` prints it."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{group['name']:40} {group['kind']:10} {group['width']:>6} in steps of {group['step']:<3} {_about(group)}"
            for group in self.groups
        ]
        free = sum(group["dense_because"] is None for group in self.groups)
        return "\n".join([*lines, f"{free} of {len(lines)} groups can shrink, target {self.target}"])


Preview = SparsePreview | StructuredPreview


def preview_of(settings: PruneSettings, dense: nn.Module, images: TaskImages) -> Preview:
    """What would be pruned of the dense network.

    Raises:
        UserError: the target cannot be reached, or the network cannot be pruned.
    """
    if settings.is_structured:
        return StructuredPreview(str(settings.goal), groups(settings, dense, images))
    generator = torch.Generator().manual_seed(settings.seed)
    network = on_accelerator(dense)
    pattern = sparse.pattern(settings, network, images, generator)
    weights = sparse.chosen_weights(settings, network)
    masks = pattern.select({name: weight.detach().abs() for name, weight in weights.items()})
    rows = [LayerZeros(name, list(kept.shape), kept.numel(), int((~kept).sum())) for name, kept in masks.items()]
    return SparsePreview(str(settings.goal), sum(row.weights for row in rows), zeros_in(masks), rows)


def _about(group: dict[str, Any]) -> str:
    if group["dense_because"] is not None:
        return f"stays dense: {group['dense_because']}"
    return ", ".join(group["layers"])
