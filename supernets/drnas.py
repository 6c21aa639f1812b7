"""DrNAS: Chen et al., "DrNAS: Dirichlet Neural Architecture Search", ICLR 2021."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from espalier.nas.gates import Gates
from espalier.nas.space import SearchSpace
from espalier.supernets.costs import MACS
from espalier.supernets.gradient_strategy import LearntStrategy
from espalier.supernets.strategy import Step


class DrNAS(LearntStrategy):
    """Gates theta ~ Dir(beta) with beta = elu(alpha) + 1, drawn anew for every step (section 3.2).

        min_beta E_{theta ~ Dir(beta)} [ L_val(w*, theta) ] + lambda d(beta, 1)

    The gradient goes through the draw: theta = g / sum g with g ~ Gamma(beta) has a pathwise derivative. Progressive
    growth of the supernet is not part of it.

    On elastic spaces this is TangleNAS: theta weighs the parts of shared weights (Sukthanker et al.,
    "Weight-Entanglement Meets Gradient-Based Neural Architecture Search", 2024).

    Args:
        space: the supernet.
        alpha_lr: learning rate of Adam for the architecture parameters.
        alpha_weight_decay: lambda.
        anchor: what d is: `decay`, ||alpha||^2 / 2, which is 0 at beta = 1, by the decay of the optimiser; or `kl`, the
            divergence KL(Dir(beta) || Dir(1)), summed over the choices.
        alpha_warmup: epochs at the start in which only the weights learn.
        cost_weight: mu of L_val + mu E[cost] / (cost of the dearest architecture), what alpha follows.
        cost: `macs`, or a file with a table of costs, such as of latencies.
        any_device: whether the table may be of another device than the one that latency is measured on.
    """

    name = "drnas"

    def __init__(
        self,
        space: SearchSpace,
        *,
        alpha_lr: PositiveFloat = 6e-4,
        alpha_weight_decay: NonNegativeFloat = 1e-3,
        anchor: Literal["decay", "kl"] = "decay",
        alpha_warmup: NonNegativeInt = 0,
        cost_weight: NonNegativeFloat = 0.0,
        cost: str = MACS,
        any_device: bool = False,
    ) -> None:
        super().__init__(
            space,
            alpha_lr=alpha_lr,
            alpha_weight_decay=alpha_weight_decay if anchor == "decay" else 0.0,
            alpha_warmup=alpha_warmup,
            cost_weight=cost_weight,
            cost=cost,
            any_device=any_device,
        )
        self._kl_weight = alpha_weight_decay if anchor == "kl" else 0.0

    def weight_gates(self, generator: torch.Generator) -> Gates:
        """A draw of the mixture, without a gradient to alpha."""
        with torch.no_grad():
            return self._draw(generator)

    def gradient(self, step: Step) -> Sequence[Tensor | None]:
        """dL_val(w, theta)/dalpha of one draw, and that of the divergence."""
        loss = step.loss(step.validation(), self._draw(step.generator))
        if self._kl_weight:
            opened = self.alphas.undecided(self.region)
            betas = [concentration(self.alphas.values[name][list(self.region[name])]) for name in opened]
            loss = loss + self._kl_weight * torch.stack([divergence(beta) for beta in betas]).sum()
        return torch.autograd.grad(loss, self.alphas.parameters(), allow_unused=True)

    def weigh(self, alpha: Tensor) -> Tensor:
        """The mean of the distribution, beta / sum beta."""
        beta = concentration(alpha)
        return beta / beta.sum()

    def likelihood(self, alpha: Tensor) -> Tensor:
        """The mean of the distribution."""
        return self.weigh(alpha)

    def _draw(self, generator: torch.Generator) -> Gates:
        return self.alphas.gates_at_once(
            self.region, lambda alphas: dirichlet([concentration(alpha) for alpha in alphas], generator)
        )


def concentration(alpha: Tensor) -> Tensor:
    """Beta = elu(alpha) + 1 > 0."""
    return F.elu(alpha) + 1


def divergence(beta: Tensor) -> Tensor:
    """KL(Dir(beta) || Dir(1)), a scalar; 0 at beta = 1."""
    uniform = torch.distributions.Dirichlet(torch.ones_like(beta))
    return torch.distributions.kl_divergence(torch.distributions.Dirichlet(beta), uniform)


def dirichlet(betas: Sequence[Tensor], generator: torch.Generator) -> Sequence[Tensor]:
    """A draw from Dir(beta) for each of `betas`, differentiable in it.

    Drawn on the CPU, so that it is the same on every device: one transfer from there, one back.
    """
    sizes = [len(beta) for beta in betas]
    gamma = torch._standard_gamma(torch.cat(list(betas)).cpu().double(), generator)
    theta = torch.cat([g / g.sum() for g in gamma.split(sizes)])
    return theta.to(betas[0]).split(sizes)
