"""GDAS: Dong & Yang, "Searching for A Robust Neural Architecture in Four GPU Hours", CVPR 2019."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor

from espalier.nas.choices import ElasticChoice
from espalier.nas.gates import Gate, Gates, Mixture
from espalier.nas.space import SearchSpace
from espalier.supernets.costs import MACS
from espalier.supernets.gradient_strategy import LearntStrategy
from espalier.supernets.strategy import Step


class GDAS(LearntStrategy):
    """One option a choice is run, drawn by Gumbel-max, with the gradient of the relaxed draw (equations 3 to 6).

        h_k = softmax_k((log p_k + o_k) / tau),  o_k = -log(-log u_k),  u ~ U(0, 1),  p = softmax(alpha)

    The gate is one-hot at argmax h in the forward pass and h in the backward pass. As only that option is run, its
    weight alone has a gradient, which reaches every alpha through the softmax. Of an elastic choice, whose options are
    parts of one another, all are run at once, and every weight has its gradient.

    Args:
        space: the supernet.
        tau_start, tau_end: temperature of the relaxation, falling linearly over the epochs.
        alpha_lr: learning rate of Adam for the architecture parameters.
        alpha_weight_decay: their decay.
        alpha_warmup: epochs at the start in which only the weights learn.
        cost_weight: mu of L_val + mu E[cost] / (cost of the dearest architecture), what alpha follows.
        cost: `macs`, or a file with a table of costs, such as of latencies.
        any_device: whether the table may be of another device than the one that latency is measured on.
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
        cost_weight: NonNegativeFloat = 0.0,
        cost: str = MACS,
        any_device: bool = False,
    ) -> None:
        super().__init__(
            space,
            alpha_lr=alpha_lr,
            alpha_weight_decay=alpha_weight_decay,
            alpha_warmup=alpha_warmup,
            cost_weight=cost_weight,
            cost=cost,
            any_device=any_device,
        )
        self._tau_start, self._tau_end = tau_start, tau_end

    def weight_gates(self, generator: torch.Generator) -> Gates:
        """The drawn path alone."""
        with torch.no_grad():
            gates, drawn = self._draw(generator, tau=1.0)  # the temperature does not move the argmax
        return {**gates, **drawn}

    def gradient(self, step: Step) -> Sequence[Tensor | None]:
        """dL_val/dalpha of one draw at the epoch's temperature."""
        progress = step.epoch / max(1, step.epochs - 1)
        tau = self._tau_start + (self._tau_end - self._tau_start) * progress
        gates, drawn = self._draw(step.generator, tau)
        loss = step.loss(step.validation(), {**gates, **self._straight_through(gates, drawn)})
        return torch.autograd.grad(loss, self.alphas.parameters(), allow_unused=True)

    def _draw(self, generator: torch.Generator, tau: float) -> tuple[dict[str, Gate], dict[str, int]]:
        """The relaxed draw of each choice, and the option that it draws."""
        gates = self.alphas.gates_at_once(self.region, lambda alphas: relaxed(alphas, generator, tau))
        names = self.alphas.undecided(self.region)
        rows = {name: gate.weights for name, gate in gates.items() if name in names and isinstance(gate, Mixture)}
        return gates, largest(rows)

    def _straight_through(self, gates: Gates, drawn: Mapping[str, int]) -> dict[str, Gate]:
        choices = self.space.choices()

        def gate(name: str, k: int) -> Mixture:
            h = gates[name]
            assert isinstance(h, Mixture)
            run = h.active if isinstance(choices[name], ElasticChoice) else (k,)
            return Mixture(straight_through(h.weights, k), run)

        return {name: gate(name, k) for name, k in drawn.items()}


def relaxed(alphas: Sequence[Tensor], generator: torch.Generator, tau: float) -> list[Tensor]:
    """H for each of `alphas`, with o drawn on the CPU, so that it is the same on every device: one transfer."""
    sizes = [len(alpha) for alpha in alphas]
    o = -torch.empty(sum(sizes), dtype=torch.float64).exponential_(generator=generator).log()
    noise = o.to(alphas[0]).split(sizes)
    return [((alpha.log_softmax(0) + o) / tau).softmax(0) for alpha, o in zip(alphas, noise, strict=True)]


def largest(rows: Mapping[str, Tensor]) -> dict[str, int]:
    """The index of the largest entry of each row: one transfer from the device for all."""
    if not rows:
        return {}
    padded = torch.nn.utils.rnn.pad_sequence([row.detach() for row in rows.values()], batch_first=True)
    return dict(zip(rows, padded.argmax(dim=1).tolist(), strict=True))


def straight_through(h: Tensor, k: int) -> Tensor:
    """1 at k and 0 elsewhere in the forward pass, h in the backward pass: the straight-through estimator."""
    hard = torch.zeros_like(h)
    hard[k] = 1.0
    return h - h.detach() + hard
