"""M-FAC as an optimiser: natural gradient with the Fisher matrix of the last gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor

from espalier.nas.arguments import checked_arguments
from espalier.nas.errors import UserError
from espalier.pruning.mfac.window import Window


class MFAC(torch.optim.Optimizer):
    """Steps along F⁻¹ g, F the damped Fisher matrix of the last m gradients, g itself among them.

        g = ∇L + weight_decay p,    d = F⁻¹ g,    v = momentum v + (1 - momentum) d,    p = p - lr v

    Frantar, Kurtic & Alistarh, NeurIPS 2021, section 5: decay is part of the gradient and so of F, and the average is
    of directions, not of gradients.

    The first step is long: with one gradient, d = g / (lambda + |g|² / m), of length about m / |g| if lambda is small.
    Use `clip_norm`, or a learning rate that warms up over about m steps. The window takes m numbers for each parameter
    (1024 for a network of 270,000: 1.1 GB), in memory and in `state_dict`.

    Args:
        params: parameters, or groups of them; `lr`, `momentum` and `weight_decay` may differ between groups.
        lr: learning rate; the default is the authors' for CIFAR-10, divided by 10 twice during training.
        momentum: of the average of directions, 0 to below 1.
        weight_decay: of every parameter, including norms and biases; put those into a group of their own to
            exempt them.
        rows: m.
        damp: lambda.
        sparse: parameters that are exactly 0 now stay 0 and take no room in the window: pruned weights, but also
            biases initialised to 0.
        clip_norm: largest length of d over all parameters; None for no limit.

    Raises:
        UserError: an option is out of range, or everything is 0 with `sparse`; in a step: lambda is too small.
        Diverged: in a step, a gradient is not finite.
    """

    @checked_arguments
    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: NonNegativeFloat = 1e-3,
        *,
        momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        weight_decay: NonNegativeFloat = 0.0,
        rows: PositiveInt = 1024,
        damp: PositiveFloat = 1e-5,
        sparse: bool = False,
        clip_norm: PositiveFloat | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.clip_norm = clip_norm
        first = self._parameters()[0]
        self._kept: Tensor | None = None
        """Which of all concatenated parameters are optimised; None for all."""
        if sparse:
            self._kept = torch.cat([parameter.detach().reshape(-1) != 0 for parameter in self._parameters()])
            if not bool(self._kept.any()):
                raise UserError("sparse", "leaves nothing to optimise: all parameters are 0", code="conflict")
        d = sum(parameter.numel() for parameter in self._parameters())
        dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
        d = d if self._kept is None else int(self._kept.sum())
        self.window = Window(rows, d, damp, dtype=dtype, device=first.device)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step. Parameters without a gradient count as 0 in the window and do not change.

        Args:
            closure: recomputes the loss and its gradients.

        Returns:
            The result of the closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.window.push(self._flat_gradient())
        direction = self.window.newest()
        if self.clip_norm is not None:
            direction *= (self.clip_norm / direction.norm()).clamp(max=1)
        self._apply(direction)
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Possible only during construction: the window has no room for more parameters."""
        if hasattr(self, "window"):
            raise ValueError("M-FAC needs all parameters at construction; make a new optimiser to add some")
        super().add_param_group(param_group)

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _flat_gradient(self) -> Tensor:
        """The gradient of all optimised parameters, `(d,)`."""
        parts = []
        for group in self.param_groups:
            for p in group["params"]:
                g = torch.zeros_like(p) if p.grad is None else p.grad.add(p, alpha=group["weight_decay"])
                parts.append(g.reshape(-1))
        flat = torch.cat(parts)
        return flat if self._kept is None else flat[self._kept]

    def _apply(self, direction: Tensor) -> None:
        """Average the direction `(d,)` and step along it."""
        if self._kept is not None:
            direction = torch.zeros_like(self._kept, dtype=direction.dtype).masked_scatter_(self._kept, direction)
        parts = iter(direction.split([parameter.numel() for parameter in self._parameters()]))
        for group in self.param_groups:
            for p in group["params"]:
                v = next(parts).view(p.shape)
                if p.grad is None:
                    continue
                if group["momentum"]:
                    state = self.state[p]
                    if "average" not in state:
                        state["average"] = torch.zeros_like(p)
                    v = state["average"].lerp_(v.to(p.dtype), 1 - group["momentum"])
                p.sub_(v, alpha=group["lr"])

    def state_dict(self) -> dict[str, Any]:
        """The state of any torch optimiser, the window, and which parameters `sparse` keeps."""
        return {**super().state_dict(), "window": self.window.state_dict(), "kept": self._kept}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict`.

        Raises:
            UserError: the window has another shape, or `sparse` keeps other parameters.
        """
        kept = state_dict["kept"]
        if (None if kept is None else kept.shape) != (None if self._kept is None else self._kept.shape):
            problem = "its optimiser left out other parameters: `sparse` differs"
            raise UserError("checkpoint", problem, code="mismatch")
        self.window.load_state_dict(state_dict["window"])
        self._kept = None if kept is None else kept.to(self.window.g.device)
        super().load_state_dict({key: state_dict[key] for key in ("state", "param_groups")})
