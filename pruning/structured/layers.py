"""One layer and its two sides: how many channels it has, how to remove some, how to mask them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from espalier.pruning.weights import CONVOLUTIONS, PRUNABLE

Side = tuple[str, str]
"""A layer's or a bare parameter's name in the network, and `out`, `in`, or the number of the parameter's dimension.

Prunable layers have two sides; other layers have one, called `out`; a parameter has its dimensions."""
KeptChannels = Mapping[str, Tensor]
"""By side, a boolean for each channel: True if it stays."""


def channels(layer: Any, side: str) -> int | None:
    """How many channels a layer has on a side; None if channels cannot be removed from it."""
    width: int | None = None
    if isinstance(layer, nn.Parameter):
        width = layer.shape[int(side)]
    elif isinstance(layer, CONVOLUTIONS):
        width = layer.out_channels if side == "out" else layer.in_channels
    elif isinstance(layer, nn.Linear):
        width = layer.out_features if side == "out" else layer.in_features
    elif isinstance(layer, _NormBase):
        width = layer.num_features
    elif isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1:
        width = layer.normalized_shape[0]
    elif isinstance(layer, nn.GroupNorm) and layer.num_groups in (1, layer.num_channels):
        width = layer.num_channels
    elif isinstance(layer, nn.PReLU) and layer.num_parameters > 1:
        width = layer.num_parameters
    elif _is_response_norm(layer):
        width = layer.weight.numel()
    return width


def normalises_channels(layer: nn.Module | nn.Parameter) -> bool:
    """Whether the layer computes statistics over channels, so that removing channels changes the others.

    ConvNeXt-V2's global response normalisation is recognised by its name and its attributes.
    """
    return isinstance(layer, nn.LayerNorm | nn.GroupNorm) or _is_response_norm(layer)


def _is_response_norm(layer: object) -> bool:
    return type(layer).__name__ in ("GlobalResponseNorm", "GRN") and hasattr(layer, "channel_dim")


@torch.no_grad()
def remove_channels(layer: nn.Module, kept: KeptChannels) -> None:
    """Remove the channels that are not kept from a layer, in place. Works on the meta device.

    Raises:
        ValueError: a grouped convolution would lose only a part of a group, or the layer has no channels.
    """
    if isinstance(layer, CONVOLUTIONS):
        _cut_convolution(layer, kept)
    elif isinstance(layer, nn.Linear):
        for side, dim in (("out", 0), ("in", 1)):
            if side in kept:
                _select(layer, ("weight", "bias") if side == "out" else ("weight",), dim, kept[side])
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, _NormBase):
        _select(layer, ("weight", "bias", "running_mean", "running_var"), 0, kept["out"])
        layer.num_features = int(kept["out"].sum())
    elif isinstance(layer, nn.LayerNorm):
        _select(layer, ("weight", "bias"), 0, kept["out"])
        layer.normalized_shape = (int(kept["out"].sum()),)
    elif isinstance(layer, nn.GroupNorm):
        _select(layer, ("weight", "bias"), 0, kept["out"])
        layer.num_groups = 1 if layer.num_groups == 1 else int(kept["out"].sum())
        layer.num_channels = int(kept["out"].sum())
    elif isinstance(layer, nn.PReLU):
        _select(layer, ("weight",), 0, kept["out"])
        layer.num_parameters = int(kept["out"].sum())
    elif _is_response_norm(layer):
        _select(layer, ("weight", "bias"), 0, kept["out"])
    else:
        raise ValueError(f"a {type(layer).__name__} has no channels that can be removed")


def _cut_convolution(layer: Any, kept: KeptChannels) -> None:
    out, into = kept.get("out"), kept.get("in")
    groups = layer.groups
    if groups > 1:
        if out is None or into is None:
            raise ValueError("a grouped convolution loses channels on one side only")
        groups_kept = into.view(groups, -1).all(dim=1)
        for side in (out, into):
            if not torch.equal(side, groups_kept.repeat_interleave(len(side) // groups)):
                raise ValueError("a grouped convolution loses a part of a group")
        layer.groups = int(groups_kept.sum())
    out_dim, in_dim = (1, 0) if layer.transposed else (0, 1)
    if out is not None:
        if groups == 1 or not layer.transposed:  # else this dimension is a group's own outputs, all of which stay
            _select(layer, ("weight",), out_dim, out)
        _select(layer, ("bias",), 0, out)
        layer.out_channels = int(out.sum())
    if into is not None:
        if groups == 1 or layer.transposed:
            _select(layer, ("weight",), in_dim, into)
        layer.in_channels = int(into.sum())


def _select(layer: nn.Module, keys: tuple[str, ...], dim: int, kept: Tensor) -> None:
    for key in keys:
        old = getattr(layer, key)
        if old is not None:
            setattr(layer, key, selected(old, dim, kept))


def selected(old: Tensor, dim: int, kept: Tensor) -> Tensor:
    """The kept channels of a tensor along a dimension; a parameter stays a parameter."""
    index = kept.cpu().nonzero().flatten().to(old.device)
    new = old.detach().index_select(dim, index)
    return nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new


@torch.no_grad()
def mask_channels(layer: Any, kept: KeptChannels, small: Callable[[], nn.Module]) -> None:
    """Mask the channels of a layer that are not kept, in place; shapes do not change.

    Weights into and out of them become zero. A norm over channels then normalises over the kept ones only.

    Args:
        layer: the layer.
        kept: the channels that stay, by side.
        small: makes a copy of the layer with the channels removed, for norms.
    """
    if normalises_channels(layer):
        vars(layer)["forward"] = _over_some(small(), kept["out"], dim=_channel_dim(layer))
    elif isinstance(layer, PRUNABLE):
        out_dim, in_dim = (1, 0) if getattr(layer, "transposed", False) else (0, 1)
        grouped = getattr(layer, "groups", 1) > 1
        if "out" in kept and not (grouped and out_dim):
            _zero(layer.weight, out_dim, kept["out"])
        if "out" in kept and layer.bias is not None:
            _zero(layer.bias, 0, kept["out"])
        if "in" in kept and not (grouped and in_dim):  # the inputs of a group are masked by its outputs
            _zero(layer.weight, in_dim, kept["in"])
    elif isinstance(layer, _NormBase) and layer.affine:
        _zero(layer.weight, 0, kept["out"])
        _zero(layer.bias, 0, kept["out"])


@torch.no_grad()
def mask_parameter(parameter: nn.Parameter, dim: int, kept: Tensor) -> None:
    """Set the entries that are not kept along a dimension to zero."""
    _zero(parameter, dim, kept)


def _zero(tensor: Tensor, dim: int, kept: Tensor) -> None:
    tensor.index_fill_(dim, (~kept).nonzero().flatten().to(tensor.device), 0.0)


def _channel_dim(norm: Any) -> int:
    """The dimension of channels. Layer norms of images (`LayerNorm2d`) are recognised by their name."""
    if _is_response_norm(norm):
        return norm.channel_dim
    return 1 if isinstance(norm, nn.GroupNorm) or "2d" in type(norm).__name__ else -1


def _over_some(small: nn.Module, kept: Tensor, *, dim: int) -> Callable[[Tensor], Tensor]:
    index = kept.nonzero().flatten()

    def forward(x: Tensor) -> Tensor:
        y = small(x.index_select(dim, index))
        return torch.zeros_like(x).index_copy(dim, index, y)

    return forward
