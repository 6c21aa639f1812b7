"""How many times each weight is used for one image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from espalier.nas.cost.count import run_without_numbers
from espalier.pruning.weights import PRUNABLE, prunable_weights


def layer_macs(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, float]:
    """Multiply-accumulates for one image of each single weight, by the names of `prunable_weights`.

    A weight of a convolution is used at every output position (of a transposed one at every input position), one of a
    linear layer for every token. Multiplied by the number of kept weights, that is the cost of a layer without its
    biases. A layer that runs twice counts twice, one that never runs has 0. The pass runs on the meta device where it
    can, and the model is not changed.

    Args:
        model: the network.
        input_shape: of one image, `(channels, height, width)`.
    """
    return run_without_numbers(model, input_shape, _uses)


def _uses(model: nn.Module, x: Tensor) -> dict[str, float]:
    names = {id(weight): name for name, weight in prunable_weights(model).items()}
    uses = dict.fromkeys(names.values(), 0.0)

    def add(weight: Tensor, positions: float) -> None:
        if id(weight) in names:
            uses[names[id(weight)]] += positions

    hooks = [
        module.register_forward_hook(_attention_hook(add) if attention else _layer_hook(add), with_kwargs=True)
        for module in model.modules()
        if (attention := isinstance(module, nn.MultiheadAttention)) or isinstance(module, PRUNABLE)
    ]
    try:
        model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return uses


def _layer_hook(add: Callable[[Tensor, float], None]) -> Callable[..., None]:
    def hook(module: Any, args: Any, kwargs: Any, output: Tensor) -> None:
        x = args[0] if args else kwargs["input"]
        if isinstance(module, nn.Linear):
            add(module.weight, math.prod(x.shape[:-1]))
        else:
            used_at = x if module.transposed else output
            add(module.weight, math.prod(used_at.shape[-len(module.kernel_size) :]))

    return hook


def _attention_hook(add: Callable[[Tensor, float], None]) -> Callable[..., None]:
    """Attention uses its projections without calling them, so that hooks on them would never run."""

    def hook(module: nn.MultiheadAttention, args: Any, kwargs: Any, output: Any) -> None:
        query, key, value = (
            args[index] if len(args) > index else kwargs[name] for index, name in enumerate(("query", "key", "value"))
        )
        tokens = [math.prod(part.shape[:-1]) for part in (query, key, value)]
        if module.in_proj_weight is not None:
            add(module.in_proj_weight, sum(tokens) / 3)  # a third of its rows for each
        add(module.out_proj.weight, tokens[0])

    return hook
