"""DARTS: Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates
from espalier.nas.space import SearchSpace
from espalier.supernets.alphas import Weigh
from espalier.supernets.gradient_strategy import GradientStrategy, softmax
from espalier.supernets.noise import paired_noise
from espalier.supernets.sparsemax import sparsemax
from espalier.supernets.strategy import Step, Strategy

PERTURBATION = 0.01
"""epsilon = 0.01 / ||dL_val/dw'||, footnote 2 of the paper."""
GATES: Mapping[str, Weigh] = {"softmax": softmax, "sigmoid": torch.sigmoid, "sparsemax": sparsemax}


@dataclass(kw_only=True, eq=False)
class DARTS(GradientStrategy):
    """min_alpha L_val(w*(alpha), alpha) with w*(alpha) = argmin_w L_train(w, alpha), one step of each in turn.

    Every choice is the mixture sum_o g_o(alpha) o(x) with g = softmax (equation 2), sparsemax, which closes the weakest
    options, or, without competition between the options, sigmoid (Chu et al., "Fair DARTS", ECCV 2020).

    Args:
        space: the supernet.
        order: 1 takes the current weights for w*(alpha); 2 looks one step of SGD ahead (section 2.3), at four times
            the cost.
        gate: how alpha becomes weights.

    The other options are those of `GradientStrategy`.
    """

    name = "darts"

    order: Literal[1, 2] = 1
    gate: Literal["softmax", "sigmoid", "sparsemax"] = "softmax"

    def weight_gates(self, generator: torch.Generator) -> Gates:
        """The mixture, without a gradient to alpha."""
        return self.mean_gates()

    def weigh(self, alpha: Tensor) -> Tensor:
        """The gates of the mixture that is trained."""
        return GATES[self.gate](alpha)

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Raises UserError where the look-ahead assumes SGD and the weights have another optimiser."""
        if self.order == 2 and not isinstance(optimizer, torch.optim.SGD):
            problem = "second-order DARTS unrolls a step of SGD"
            raise UserError("supernet.optimizer", problem, code="conflict", allowed=("momentum", "sgd"))

    def gradient(self, step: Step) -> Sequence[Tensor | None]:
        """dL_val/dalpha, of order `order`."""
        if self.order == 1:
            loss = step.loss(step.validation(), self._gates())
            return torch.autograd.grad(loss, self.alphas.parameters(), allow_unused=True)
        validation = step.validation()
        xi, momentum, decay, buffers = _sgd(step)
        noise = int(torch.randint(2**62, (), generator=step.generator))

        def train_loss(w: Mapping[str, Tensor]) -> Tensor:
            # Without common noise, the finite difference would be mostly noise, divided by 2 epsilon.
            with paired_noise(step.supernet, noise):
                return step.loss(step.train, self._gates(), w)

        return unrolled_gradient(
            train_loss,
            lambda w: step.loss(validation, self._gates(), w),
            self.alphas.parameters(),
            dict(step.supernet.named_parameters()),
            xi=xi,
            momentum=momentum,
            decay=decay,
            buffers=buffers,
        )

    def _gates(self) -> Gates:
        return self.alphas.gates(self.region, self.weigh)


class FixedAlpha(DARTS):
    """DARTS without architecture steps: alpha stays at its nearly uniform initial values.

    On NAS-Bench-201, perturbation-based selection finds architectures as good in such a supernet as in a trained one
    (Wang et al., "Rethinking Architecture Selection in Differentiable NAS", ICLR 2021, section 5).
    """

    name = "fixed_alpha"
    learns = False

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)

    def before_step(self, step: Step) -> None:
        """Nothing."""

    def preferred(self) -> Architecture:
        """Raises UserError: alpha has learnt nothing."""
        return Strategy.preferred(self)


Loss = Callable[[Mapping[str, Tensor]], Tensor]
"""A loss of weights by name, and of alpha."""


def unrolled_gradient(
    train_loss: Loss,
    validation_loss: Loss,
    alphas: Sequence[Tensor],
    weights: Mapping[str, Tensor],
    *,
    xi: float,
    momentum: float = 0.0,
    decay: Mapping[str, float] | None = None,
    buffers: Mapping[str, Tensor] | None = None,
) -> list[Tensor]:
    """The second-order gradient of the validation loss with respect to alpha (equations 6 to 8).

        w'  = w - xi (mu v + dL_train(w, alpha)/dw + lambda w)
        dL_val(w', alpha)/dalpha - xi [dL_train(w+, alpha)/dalpha - dL_train(w-, alpha)/dalpha] / (2 epsilon)

    where w+- = w +- epsilon u, u = dL_val(w', alpha)/dw' and epsilon = 0.01 / ||u||: w, not w', is displaced.

    Args:
        train_loss: of weights by name; the same weights must give the same loss each time.
        validation_loss: of weights by name.
        alphas: what the gradient is taken with respect to.
        weights: w by name.
        xi: learning rate of the look-ahead.
        momentum: mu.
        decay: lambda by name.
        buffers: v by name.

    Returns:
        One tensor for each of `alphas`.
    """
    decay, buffers = decay or {}, buffers or {}
    w = {name: tensor.detach().requires_grad_() for name, tensor in weights.items()}
    slope = _gradient(train_loss(w), w)
    with torch.no_grad():
        unrolled = {
            name: tensor - xi * (momentum * buffers.get(name, 0.0) + slope[name] + decay.get(name, 0.0) * tensor)
            for name, tensor in w.items()
        }
    ahead = {name: tensor.requires_grad_() for name, tensor in unrolled.items()}
    both = torch.autograd.grad(validation_loss(ahead), [*alphas, *ahead.values()], allow_unused=True)
    direct, reached = _zeros_for_none(both[: len(alphas)], alphas), both[len(alphas) :]
    u = dict(zip(ahead, _zeros_for_none(reached, list(ahead.values())), strict=True))
    epsilon = PERTURBATION / torch.nn.utils.get_total_norm(list(u.values())).clamp(min=1e-12)  # u = 0 displaces nothing
    sides = []
    for sign in (1, -1):
        with torch.no_grad():
            displaced = {name: tensor + sign * epsilon * u[name] for name, tensor in w.items()}
        slopes = torch.autograd.grad(train_loss(displaced), alphas, allow_unused=True)
        sides.append(_zeros_for_none(slopes, alphas))
    return [a - xi * (plus - minus) / (2 * epsilon) for a, plus, minus in zip(direct, *sides, strict=True)]


def _gradient(loss: Tensor, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = list(weights.values())
    slopes = torch.autograd.grad(loss, tensors, allow_unused=True)
    return dict(zip(weights, _zeros_for_none(slopes, tensors), strict=True))


def _zeros_for_none(slopes: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(x) if slope is None else slope for slope, x in zip(slopes, like, strict=True)]


def _sgd(step: Step) -> tuple[float, float, dict[str, float], dict[str, Tensor]]:
    """xi, mu, and lambda and v by name, of the optimiser of the weights."""
    names = {parameter: name for name, parameter in step.supernet.named_parameters()}
    decay, buffers = {}, {}
    for group in step.optimizer.param_groups:
        for parameter in group["params"]:
            decay[names[parameter]] = float(group["weight_decay"])
            buffer = step.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if buffer is not None:
                buffers[names[parameter]] = buffer
    first = step.optimizer.param_groups[0]
    return float(first["lr"]), float(first["momentum"]), decay, buffers
