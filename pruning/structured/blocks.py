"""Residual blocks: modules that return their input when all their weights are zero, so that they can be removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from espalier.nas.copying import copied
from espalier.pruning.structured.groups import Units
from espalier.pruning.weights import PRUNABLE, matches


def residual_blocks(
    model: nn.Module, example: Tensor, *, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> list[Units]:
    """The innermost modules of `model` that compute x + f(x) with f(x) = 0 for zero weights, found by running them.

    An activation after the sum is allowed if it changes nothing, such as a ReLU after a ReLU.

    Args:
        model: a network whose signals do not vanish, best a copy with random parameters.
        example: its input.
        include: patterns of layer names; every layer of a block must match one.
        exclude: patterns of layer names; no layer of a block may match one.
    """
    calls: dict[str, list[Tensor | None]] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            x = args[0] if len(args) == 1 and not kwargs else None
            alone = isinstance(x, Tensor) and isinstance(output, Tensor) and x.shape == output.shape
            calls.setdefault(name, []).append(args[0].detach().clone() if alone else None)

        return hook

    named = [(name, module) for name, module in model.named_modules() if name and _has_layers(module)]
    hooks = [module.register_forward_hook(record(name), with_kwargs=True) for name, module in named]
    with torch.no_grad():
        model(example)
    for hook in hooks:
        hook.remove()
    found = [name for name, module in named if len(calls.get(name, [])) == 1 and _is_residual(module, calls[name][0])]
    innermost = [name for name in found if not any(other.startswith(f"{name}.") for other in found)]
    return [Units(name, "block", 1, ()) for name in innermost if _matches(model, name, include, exclude)]


def _has_layers(module: nn.Module) -> bool:
    return not isinstance(module, PRUNABLE) and any(isinstance(layer, PRUNABLE) for layer in module.modules())


@torch.no_grad()
def _is_residual(module: nn.Module, x: Tensor | None) -> bool:
    if x is None:
        return False
    silent = copied(module)
    for parameter in silent.parameters():
        parameter.zero_()
    y = silent(x.clone())
    return bool((y - x).abs().max() <= 1e-6 * x.abs().max())


def layers_in(model: nn.Module, block: str) -> tuple[str, ...]:
    """Names of the convolutions and linear layers of a block."""
    inside = model.get_submodule(block).named_modules()
    return tuple(f"{block}.{name}" for name, layer in inside if isinstance(layer, PRUNABLE))


def _matches(model: nn.Module, block: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    return all(matches(layer, include) and not matches(layer, exclude) for layer in layers_in(model, block))
