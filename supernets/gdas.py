"""GDAS: Dong & Yang, "Searching for A Robust Neural Architecture in Four GPU Hours", CVPR 2019."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from nas.gates import Gates, Mixture
from nas.space import SearchSpace
from supernets.learnt import LearntStrategy
from supernets.strategy import Step


class GDAS(LearntStrategy):
    """One option a choice is run, drawn by Gumbel-max, with the gradient of the relaxed draw (equations 3 to 6).

        h_k = softmax_k((log p_k + o_k) / tau),  o_k = -log(-log u_k),  u ~ U(0, 1),  p = softmax(alpha)

    The gate is one-hot at argmax h in the forward pass and h in the backward pass. As only that option is run, its
    weight alone has a gradient, which reaches every alpha through the softmax.

    Args:
        space: the supernet.
        tau_start, tau_end: temperature of the relaxation, falling linearly over the epochs.
        alpha_lr: learning rate of Adam for the architecture parameters.
        alpha_weight_decay: their decay.
        alpha_warmup: epochs at the start in which only the weights learn.
    """

    name = "gdas"

    def __init__(
        self,
        space: SearchSpace,
        *,
        tau_start: PositiveFloat = 10.0,
        tau_end: PositiveFloat = 0.1,
        alpha_lr: PositiveFloat = 3e-4,
        alpha_weight_decay: NonNegativeFloat = 1e-3,
        alpha_warmup: NonNegativeInt = 0,
    ) -> None:
        super().__init__(space, alpha_lr=alpha_lr, alpha_weight_decay=alpha_weight_decay, alpha_warmup=alpha_warmup)
        self._tau_start, self._tau_end = tau_start, tau_end

    def weight_gates(self, generator: torch.Generator) -> Gates:
        """The drawn path alone."""
        with torch.no_grad():
            drawn = self._draw(generator, tau=1.0)  # the temperature does not move the argmax
        paths = {n: g.active[0] for n, g in drawn.items() if isinstance(g, Mixture) and n in self.alphas.values}
        return {**drawn, **paths}

    def gradient(self, step: Step) -> Sequence[Tensor | None]:
        """dL_val/dalpha of one draw at the epoch's temperature."""
        progress = step.epoch / max(1, step.epochs - 1)
        tau = self._tau_start + (self._tau_end - self._tau_start) * progress
        loss = step.loss(step.validation(), self._draw(step.generator, tau))
        return torch.autograd.grad(loss, self.alphas.parameters(), allow_unused=True)

    def _draw(self, generator: torch.Generator, tau: float) -> Gates:
        gates = self.alphas.gates_at_once(self.region, lambda alphas: relaxed(alphas, generator, tau))
        drawn = self.alphas.undecided(self.region)
        mixtures = {name: gate for name, gate in gates.items() if name in drawn and isinstance(gate, Mixture)}
        return {**gates, **one_hot(mixtures)}


def relaxed(alphas: Sequence[Tensor], generator: torch.Generator, tau: float) -> list[Tensor]:
    """h for each of `alphas`, with o drawn on the CPU, so that it is the same on every device: one transfer."""
    sizes = [len(alpha) for alpha in alphas]
    o = -torch.empty(sum(sizes), dtype=torch.float64).exponential_(generator=generator).log()
    noise = o.to(alphas[0]).split(sizes)
    return [((alpha.log_softmax(0) + o) / tau).softmax(0) for alpha, o in zip(alphas, noise, strict=True)]


def one_hot(mixtures: Mapping[str, Mixture]) -> dict[str, Mixture]:
    """Of each mixture the largest weight as the only one that is run: 1 forward, the mixture's gradient backward.

    Which it is has to be known on the CPU: one transfer for all.
    """
    if not mixtures:
        return {}
    rows = [mixture.weights.detach() for mixture in mixtures.values()]
    largest = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).argmax(dim=1).tolist()
    return {name: _only(mixture.weights, k) for (name, mixture), k in zip(mixtures.items(), largest, strict=True)}


def _only(h: Tensor, k: int) -> Mixture:
    hard = torch.zeros_like(h)
    hard[k] = 1.0
    return Mixture(h - h.detach() + hard, (k,))
