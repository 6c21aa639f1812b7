"""GDAS: Dong & Yang, "Searching for A Robust Neural Architecture in Four GPU Hours", CVPR 2019."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import PositiveFloat
from torch import Tensor

from espalier.nas.choices import ElasticChoice
from espalier.nas.gates import Gate, Gates, Mixture
from espalier.supernets.gradient_strategy import GradientStrategy
from espalier.supernets.strategy import Step


@dataclass(kw_only=True, eq=False)
class GDAS(GradientStrategy):
    """One option a choice is run, drawn by Gumbel-max, with the gradient of the relaxed draw (equations 3 to 6).

        h_k = softmax_k((log p_k + o_k) / tau),  o_k = -log(-log u_k),  u ~ U(0, 1),  p = softmax(alpha)

    The gate is one-hot at argmax h in the forward pass and h in the backward pass. As only that option is run, its
    weight alone has a gradient, which reaches every alpha through the softmax. Of an elastic choice, whose options are
    parts of one another, all are run at once, and every weight has its gradient.

    Args:
        space: the supernet.
        tau_start: temperature of the relaxation in the first epoch.
        tau_end: temperature in the last epoch; it falls linearly over the epochs.

    The other options are those of `GradientStrategy`.
    """

    name = "gdas"

    tau_start: PositiveFloat = 10.0
    tau_end: PositiveFloat = 0.1

    def weight_gates(self, generator: torch.Generator) -> Gates:
        """The drawn path alone."""
        with torch.no_grad():
            gates, drawn = self._draw(generator, tau=1.0)  # the temperature does not move the argmax
        return {**gates, **drawn}

    def gradient(self, step: Step) -> Sequence[Tensor | None]:
        """dL_val/dalpha of one draw at the epoch's temperature."""
        progress = step.epoch / max(1, step.epochs - 1)
        tau = self.tau_start + (self.tau_end - self.tau_start) * progress
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
