"""DrNAS: Chen et al., "DrNAS: Dirichlet Neural Architecture Search", ICLR 2021."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from espalier.nas.gates import Gates
from espalier.supernets.gradient_strategy import GradientStrategy
from espalier.supernets.strategy import Step


@dataclass(kw_only=True, eq=False)
class DrNAS(GradientStrategy):
    """Gates theta ~ Dir(beta) with beta = elu(alpha) + 1, drawn anew for every step (section 3.2).

        min_beta E_{theta ~ Dir(beta)} [ L_val(w*, theta) ] + lambda d(beta, 1)

    The gradient goes through the draw: theta = g / sum g with g ~ Gamma(beta) has a pathwise derivative. Progressive
    growth of the supernet is not part of it.

    On elastic spaces this is TangleNAS: theta weighs the parts of shared weights (Sukthanker et al.,
    "Weight-Entanglement Meets Gradient-Based Neural Architecture Search", 2024).

    Args:
        space: the supernet.
        alpha_lr: learning rate of Adam for the architecture parameters.
        anchor: d. `decay` is ||alpha||^2 / 2, which is 0 at beta = 1, by the optimiser's weight decay; `kl` is the
            divergence KL(Dir(beta) || Dir(1)), summed over the choices. Either is weighted by `alpha_weight_decay`,
            the paper's lambda.

    The other options are those of `GradientStrategy`.
    """

    name = "drnas"

    alpha_lr: PositiveFloat = 6e-4
    anchor: Literal["decay", "kl"] = "decay"

    @property
    def optimizer_decay(self) -> float:
        """Lambda where d is ||alpha||^2 / 2; the divergence is part of the loss instead."""
        return self.alpha_weight_decay if self.anchor == "decay" else 0.0

    def weight_gates(self, generator: torch.Generator) -> Gates:
        """A draw of the mixture, without a gradient to alpha."""
        with torch.no_grad():
            return self._draw(generator)

    def gradient(self, step: Step) -> Sequence[Tensor | None]:
        """dL_val(w, theta)/dalpha of one draw, and that of the divergence."""
        loss = step.loss(step.validation(), self._draw(step.generator))
        if self.anchor == "kl":
            opened = self.alphas.undecided(self.region)
            betas = [concentration(self.alphas.values[name][list(self.region[name])]) for name in opened]
            loss = loss + self.alpha_weight_decay * torch.stack([divergence(beta) for beta in betas]).sum()
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
