"""Remove units from a network, or mask them in the dense network: both must compute the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from espalier.nas.copying import copied
from espalier.pruning.structured.attributes import update_channel_counts
from espalier.pruning.structured.groups import Removed, Units
from espalier.pruning.structured.layers import channels, mask_channels, mask_parameter, remove_channels, selected


def remove(model: nn.Module, groups: Iterable[Units], removed: Removed) -> None:
    """Remove units from a network, in place: layers shrink, dependent attributes change, blocks become Identity.

    Raises:
        ValueError: a layer cannot lose these channels.
    """
    groups = [group for group in groups if group.name in removed and bool(removed[group.name].any())]
    for name, kept in _kept(model, groups, removed).items():
        parameter = _parameter(model, name)
        if parameter is None:
            remove_channels(model.get_submodule(name), kept)
            continue
        parent, _, key = name.rpartition(".")
        smaller: Tensor = parameter
        for dim, stays in kept.items():
            smaller = selected(smaller, int(dim), stays)
        setattr(model.get_submodule(parent), key, smaller)
    for group in groups:
        number = int((~removed[group.name]).sum())
        for attribute in group.attributes:
            vars(model.get_submodule(attribute.module))[attribute.name] = attribute.per_unit * number
        if group.kind == "block":
            parent, _, child = group.name.rpartition(".")
            setattr(model.get_submodule(parent), child, nn.Identity())
    update_channel_counts(model)
    clear_caches(model)


@torch.no_grad()
def mask(model: nn.Module, groups: Iterable[Units], removed: Removed) -> None:
    """Mask units, in place: weights into and out of them become zero, shapes stay, norms ignore them.

    All weights of a block become zero, so that only its shortcut is left. The masked network differs from the smaller
    one exactly if something depends on a removed channel in another way than through these weights.
    """
    groups = [group for group in groups if group.name in removed and bool(removed[group.name].any())]
    for name, kept in _kept(model, groups, removed).items():
        if (parameter := _parameter(model, name)) is not None:
            for dim, stays in kept.items():
                mask_parameter(parameter, int(dim), stays)
            continue
        layer = model.get_submodule(name)
        mask_channels(layer, kept, lambda layer=layer, kept=kept: _smaller(layer, kept))  # type: ignore[misc]
    for group in groups:
        if group.kind == "block":
            for parameter in model.get_submodule(group.name).parameters():
                parameter.zero_()
    clear_caches(model)


def clear_caches(model: nn.Module) -> None:
    """Make modules drop values cached from their weights: some do so when switched to training mode."""
    was_training = {module: module.training for module in model.modules()}
    model.train()
    for module, training in was_training.items():
        module.training = training


def _smaller(layer: nn.Module, kept: dict[str, Tensor]) -> nn.Module:
    small = copied(layer)
    remove_channels(small, kept)
    return small


def _kept(model: nn.Module, groups: Iterable[Units], removed: Removed) -> dict[str, dict[str, Tensor]]:
    """The kept channels of each layer's sides, by the layer's name."""
    kept: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for group in groups:
        for member in group.members:
            name, side = member.side
            parameter = _parameter(model, name)
            width = channels(model.get_submodule(name) if parameter is None else parameter, side)
            stays = kept[name].setdefault(side, torch.ones(width or 0, dtype=torch.bool))
            inside = member.unit_of >= 0
            stays[inside] &= ~removed[group.name][member.unit_of[inside]]
    return kept


def _parameter(model: nn.Module, name: str) -> nn.Parameter | None:
    """The bare parameter of this name; None if the name is a module's."""
    parent, _, key = name.rpartition(".")
    return model.get_submodule(parent)._parameters.get(key)
