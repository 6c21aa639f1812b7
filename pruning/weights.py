"""Which weights of a network may be pruned: those of convolutions and linear layers, never biases or norms."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from espalier.nas.errors import UserError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PRUNABLE = (*CONVOLUTIONS, nn.Linear)
"""Layers whose `weight` is prunable."""

Weights = Mapping[str, nn.Parameter]
"""Weights by their names in the network's state, in the network's order."""


def prunable_weights(model: nn.Module, *, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()) -> Weights:
    """The prunable weights of `model`; a weight shared by several layers appears once, under its first name.

    Args:
        model: the network.
        include: patterns (`*`, `?`, `[...]`) of layer names; a layer is used if one matches.
        exclude: patterns of layer names to leave out.

    Raises:
        UserError: a pattern matches no prunable layer, or no layer is left.
    """
    layers = _layers(model)
    check_patterns(layers, include=include, exclude=exclude)
    chosen = {
        f"{name}.{weight_name}".lstrip("."): weight
        for name, (weight_name, weight) in layers.items()
        if matches(name, include) and not matches(name, exclude)
    }
    if not chosen:
        raise UserError("include", "leaves nothing to prune", code="conflict")
    return chosen


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a layer's name matches one of the patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def check_patterns(layers: Collection[str], **patterns: Sequence[str]) -> None:
    """Check that every pattern matches a prunable layer.

    Args:
        layers: names of the prunable layers.
        **patterns: the patterns, by the option that holds them.

    Raises:
        UserError: there is no prunable layer, or a pattern matches none; its option is named.
    """
    if not layers:
        raise UserError("model", "has no convolution and no linear layer to prune", code="unsupported")
    for option, given in patterns.items():
        for pattern in given:
            if not any(matches(name, [pattern]) for name in layers):
                raise UserError(option, f"no prunable layer matches {pattern!r}", allowed=layers, given=pattern)


def _layers(model: nn.Module) -> dict[str, tuple[str, nn.Parameter]]:
    """The name and the tensor of each prunable layer's weight, by the layer's name."""
    layers: dict[str, tuple[str, nn.Parameter]] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        if isinstance(module, PRUNABLE):
            weight_name = "weight"
        elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            weight_name = "in_proj_weight"  # its output projection is a linear layer of its own
        else:
            continue
        weight = getattr(module, weight_name)
        if isinstance(weight, nn.Parameter) and id(weight) not in seen:
            seen.add(id(weight))
            layers[name] = (weight_name, weight)
    return layers
