"""Which weights of a network may be pruned: those of convolutions and linear layers, never biases or norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from nas.errors import UserError

PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
"""Layers whose `weight` is prunable."""

Weights = Mapping[str, nn.Parameter]
"""Weights by their names in the network's state, in the network's order."""


def prunable_weights(model: nn.Module, *, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()) -> Weights:
    """The prunable weights of `model`, a weight that layers share once, under its first name.

    Args:
        include: patterns (`*`, `?`, `[...]`) of layer names, of which one must match. exclude: of which none may.

    Raises:
        UserError: a pattern matches no prunable layer, or none is left.
    """
    layers = _layers(model)
    for key, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if layers and not any(fnmatchcase(name, pattern) for name in layers):
                raise UserError(key, f"no prunable layer is called {pattern!r}", allowed=layers, given=pattern)
    chosen = {
        f"{name}.{weight_name}".lstrip("."): weight
        for name, (weight_name, weight) in layers.items()
        if any(fnmatchcase(name, pattern) for pattern in include)
        and not any(fnmatchcase(name, pattern) for pattern in exclude)
    }
    if not chosen:
        raise UserError("include", "leaves nothing to prune" if layers else "the network has no prunable layer")
    return chosen


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
