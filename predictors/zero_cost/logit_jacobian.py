"""How the logits of each image depend on single weights of many layers."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from espalier.predictors.zero_cost.network import ScoreError, logits


def logits_and_jacobian(model: nn.Module, layers: Sequence[str], x: Tensor) -> tuple[Tensor, Tensor]:
    """The logits `(n, classes)` and their derivatives J `(n, classes, p)` by one random weight of each of p layers.

    One pass back per class serves all images and weights: J_n is the sum over positions of δ_n ∂a_n/∂w, where a is the
    layer's output and δ its gradient. Batch norm is by the statistics of each image. Uses up the model.

    Args:
        model: takes images and returns logits.
        layers: paths of Conv2d and Linear layers of the model, p of them.
        x: images `(n, ...)`.

    Raises:
        ScoreError: a batch norm has one value per channel in one image.
    """
    model.eval().requires_grad_(False)
    rows: list[Tensor] = [torch.zeros(len(x), device=x.device) for _ in layers]
    with ExitStack() as stack:
        stack.enter_context(_NormOfEachImage())
        for layer, row in zip(map(model.get_submodule, layers), rows, strict=True):
            stack.enter_context(layer.register_forward_hook(_adds_to(row, layer)))
        f = logits(model(x), len(x))
    by_class = []
    for f_c in f.unbind(1):
        for row in rows:
            row.zero_()
        if f.requires_grad:
            f_c.sum().backward(retain_graph=True)
        by_class.append(torch.stack(rows, 1))
    return f.detach(), torch.stack(by_class, 1)


def _adds_to(row: Tensor, layer: nn.Module) -> Callable[..., Tensor]:
    """A forward hook that makes every backward pass add ∂f_n/∂w to `row` `(n,)`, w a random weight of the layer."""
    slopes: Any = copy.deepcopy(layer)  # linear in its weights, it puts out ∂a/∂w where w is 1 and all others 0
    for parameter in slopes.parameters():
        parameter.zero_()
    k = int(torch.randint(slopes.weight.numel(), ()))
    slopes.weight.view(-1)[k] = 1
    channel = k // slopes.weight[0].numel()
    axis = 1 if isinstance(layer, nn.Conv2d) else -1

    def hook(_: nn.Module, inputs: tuple[Tensor, ...], a: Tensor) -> Tensor:
        if len(a) != len(row):
            raise ScoreError(
                "network", f"vkdnw needs the images first; a layer of {len(row)} puts out {tuple(a.shape)}"
            )
        if not a.requires_grad:
            a = a.requires_grad_().clone()  # for whoever writes into it, as an in-place ReLU does
        slope = slopes(*(x.detach() for x in inputs)).select(axis, channel).clone()

        def add(delta: Tensor) -> None:
            row.add_((delta.select(axis, channel) * slope).reshape(len(row), -1).sum(1))

        a.register_hook(add)
        return a

    return hook


class _NormOfEachImage(TorchFunctionMode):
    """Runs batch norms on every image by itself, with the rest of their arguments as they are."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.batch_norm:
            return func(*args, **(kwargs or {}))
        given = inspect.signature(F.batch_norm).bind(*args, **(kwargs or {}))
        given.apply_defaults()
        x, weight, bias, eps = (given.arguments[name] for name in ("input", "weight", "bias", "eps"))
        if x[0, 0].numel() == 1:
            problem = f"batch norm of {tuple(x.shape)}: one value per channel has no statistics; "
            raise ScoreError("network", problem + "vkdnw takes one image at a time and needs larger images here")
        return F.instance_norm(x, weight=weight, bias=bias, eps=eps)
