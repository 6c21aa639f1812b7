"""Which weights of a network may be pruned: those of convolutions and linear layers, never biases or norms.

Recurrent and embedding layers are prunable where a pattern other than `*` names them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn

from espalier.nas.errors import UserError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
PRUNABLE = (*CONVOLUTIONS, nn.Linear)
"""Layers whose `weight` is prunable."""

BY_NAME = (nn.RNNBase, nn.Embedding)
"""Layers whose weights are prunable if a pattern names them."""

Weights = Mapping[str, nn.Parameter]
"""Weights by their names in the network's state, in the network's order."""


def prunable_weights(model: nn.Module, *, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()) -> Weights:
    """The prunable weights of `model`; a weight shared by several layers appears once, under its first name.

    Args:
        model: the network.
        include: patterns (`*`, `?`, `[...]`) of layer names; a layer is used if one matches. A recurrent or embedding
            layer is used if one other than `*` matches.
        exclude: patterns of layer names to leave out.

    Raises:
        UserError: a pattern matches no prunable layer, or no layer is left.
    """
    layers = _layers(model)
    check_patterns(layers, include=include, exclude=exclude)
    named = [pattern for pattern in include if pattern != "*"]
    chosen = {
        f"{name}.{weight_name}".lstrip("."): weight
        for name, weights in layers.items()
        for weight_name, weight in weights.items()
        if matches(name, named if isinstance(model.get_submodule(name), BY_NAME) else include)
        and not matches(name, exclude)
    }
    if not chosen:
        raise UserError("include", "leaves nothing to prune", code="conflict")
    return chosen


def left_out(model: nn.Module, weights: Weights) -> dict[str, str]:
    """The layers with weights of two or more dimensions that are not among `weights`, with the type of each.

    A weight that is computed (by weight norm or spectral norm) is no parameter that could be set to zero.
    """
    chosen = {id(weight) for weight in weights.values()}
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        owner = name.partition(".parametrizations")[0]
        for parameter in module.parameters(recurse=False):
            if parameter.ndim > 1 and id(parameter) not in chosen:
                layer = model.get_submodule(owner)
                kind = type(layer).__name__.removeprefix("Parametrized")
                computed = isinstance(layer, PRUNABLE) and "weight" not in layer._parameters
                found[owner] = f"{kind} with a computed weight" if computed else kind
    return found


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
        raise UserError("model", "has no layer with weights to prune", code="unsupported")
    for option, given in patterns.items():
        for pattern in given:
            if not any(matches(name, [pattern]) for name in layers):
                raise UserError(option, f"no prunable layer matches {pattern!r}", allowed=layers, given=pattern)


def _layers(model: nn.Module) -> dict[str, dict[str, nn.Parameter]]:
    """The prunable tensors of each layer by their names in it, by the layer's name."""
    layers: dict[str, dict[str, nn.Parameter]] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        # Not by getattr, which computes the weight of a layer with spectral norm and advances its power iteration.
        own = {
            weight_name: weight
            for weight_name, weight in module._parameters.items()
            if weight is not None and id(weight) not in seen and _is_prunable(module, weight_name)
        }
        seen.update(map(id, own.values()))
        if own:
            layers[name] = own
    return layers


def _is_prunable(module: nn.Module, name: str) -> bool:
    if isinstance(module, nn.MultiheadAttention):  # its output projection is a linear layer of its own
        return name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    if isinstance(module, nn.RNNBase):
        return name.startswith("weight_")
    return isinstance(module, (*PRUNABLE, *BY_NAME)) and name == "weight"
