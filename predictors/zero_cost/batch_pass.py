"""The pass that most scores share: one batch forward and backward through the network, in training mode."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from espalier.predictors.zero_cost.network import ScoreError, layer_weights, logits
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.relu_codes import CodeKernel


@dataclass(frozen=True)
class Map:
    """What one execution of a Conv2d or Linear layer put out.

    Attributes:
        output: a `(n, positions, channels)`.
        gradient: δ, the loss's gradient by it, of the same shape.
        fan_in: weights of one output channel.
    """

    output: Tensor
    gradient: Tensor
    fan_in: int


class BatchPass:
    """One pass of the network with its initial weights w over the whole batch.

    Batch norms use the statistics of the batch; L is the mean cross-entropy. The forward pass runs on construction,
    each backward pass when its result is first needed.

    Args:
        probe: the network and the batch; its `reads` say what to observe on the way.

    Attributes:
        weights: w by name, detached; see `layer_weights`.
        kernel: Σ_relu C Cᵀ + (1-C)(1-C)ᵀ of the codes of all ReLUs `(n, n)`, None where there is no ReLU (needs the
            reading `codes`).
    """

    def __init__(self, probe: Probe) -> None:
        model = probe.network()
        self._reads = probe.reads
        self._y = probe.y
        self._x = probe.x.requires_grad_()
        self._outputs: list[tuple[nn.Module, Tensor]] = []
        self._parameters = layer_weights(model) if probe.reads - {"codes", "jacobian"} else {}
        self.weights = {name: weight.detach() for name, weight in self._parameters.items()}
        codes = CodeKernel(len(self._x))
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(bool(probe.reads - {"codes"})))
            if "maps" in probe.reads:
                stack.enter_context(self._observed(model))
            if "curvature" in probe.reads:
                stack.enter_context(_TwiceDifferentiable())
            if "codes" in probe.reads:
                stack.enter_context(codes)
            self._logits = logits(model(self._x.clone()), len(self._x))
        self.kernel = codes.kernel

    @property
    def gradients(self) -> dict[str, Tensor]:
        """G = ∂L/∂w by name; zeros for a weight that no path uses."""
        return {name: gradient.detach() for name, gradient in self._gradients.items()}

    @cached_property
    def maps(self) -> list[Map]:
        """All executions of Conv2d and Linear layers, in order (reading `maps`)."""
        assert "maps" in self._reads
        return [
            Map(_by_channel(module, output.detach()), _by_channel(module, gradient.detach()), fan_in(module))
            for (module, output), gradient in zip(self._outputs, self._backward[1], strict=True)
        ]

    @cached_property
    def curvature(self) -> dict[str, Tensor]:
        """H g by name, H the Hessian of L by all w together (reading `curvature`)."""
        assert "curvature" in self._reads
        z = sum((g.detach() * g).sum() for g in self._gradients.values())
        try:
            return self._by_weight(_gradients(z, list(self._parameters.values())))
        except RuntimeError as error:
            missing = re.search(r"derivative for (\S+) is not implemented", str(error))
            if missing is None:
                raise
            raise ScoreError("network", f"torch has no second derivative of {missing[1]}") from error

    @cached_property
    def jacobian(self) -> Tensor:
        """J_i = ∂(Σ_c f_c(x))/∂x_i, flattened `(n, d)`; batch statistics let the images touch each other."""
        (by_image,) = _gradients(self._logits.sum(), [self._x])
        return by_image.flatten(1)

    @property
    def _gradients(self) -> dict[str, Tensor]:
        return self._by_weight(self._backward[0])

    @cached_property
    def _backward(self) -> tuple[list[Tensor], list[Tensor]]:
        weights, outputs = list(self._parameters.values()), [output for _, output in self._outputs]
        loss = F.cross_entropy(self._logits, self._y)
        gradients = _gradients(loss, weights + outputs, create_graph="curvature" in self._reads)
        return gradients[: len(weights)], gradients[len(weights) :]

    def _by_weight(self, tensors: list[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self._parameters, tensors, strict=True))

    @contextmanager
    def _observed(self, model: nn.Module) -> Iterator[None]:
        def keep(module: nn.Module, _: Any, output: Tensor) -> Tensor:
            self._outputs.append((module, output))
            return output.clone()  # the next layer may modify it, as an in-place ReLU does

        hooks = [m.register_forward_hook(keep) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        yield
        for hook in hooks:
            hook.remove()


class _TwiceDifferentiable(TorchFunctionMode):
    """Runs functions that torch differentiates only once as compositions of others."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.hardsigmoid:
            return (args[0] / 6 + 0.5).clamp(0, 1)  # not relu6, which would count as a ReLU
        return func(*args, **(kwargs or {}))


def fan_in(layer: nn.Module) -> int:
    """Weights of one output channel of a Conv2d or Linear layer."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight[0].numel()


def _by_channel(layer: nn.Module, output: Tensor) -> Tensor:
    """`(n, positions, channels)` of an output `(n, channels, h, w)` of Conv2d or `(n, ..., channels)` of Linear."""
    if isinstance(layer, nn.Conv2d):
        return output.flatten(2).transpose(1, 2)
    return output.reshape(len(output), -1, output.shape[-1])


def _gradients(value: Any, inputs: list[Any], *, create_graph: bool = False) -> list[Tensor]:
    return list(
        torch.autograd.grad(
            value, inputs, create_graph=create_graph, retain_graph=True, allow_unused=True, materialize_grads=True
        )
    )
