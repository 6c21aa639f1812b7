"""ProxylessNAS: one path at a time, with the expected cost in the loss.

Cai, Zhu & Han, "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from espalier.nas.architecture import Architecture
from espalier.nas.choices import Choice, InputChoice, LayerChoice
from espalier.nas.errors import UserError
from espalier.nas.gates import Gate, Gates
from espalier.nas.region import Region
from espalier.supernets.cost_loss import CostLoss, CostLossName, TargetLoss, cost_loss
from espalier.supernets.costs import MACS, costs_from
from espalier.supernets.gate_gradients import alpha_gradient, gate_gradients
from espalier.supernets.gradient_strategy import AlphaStrategy, check_warmup, softmax
from espalier.supernets.masked_adam import MaskedAdam
from espalier.supernets.selection.argmax import argmax
from espalier.supernets.selection.constrained import likeliest_within
from espalier.supernets.strategy import Step

BETAS = (0.0, 0.999)
"""Of Adam for alpha: with momentum, options that were not drawn would go on moving (the authors' code)."""


@dataclass(kw_only=True, eq=False)
class ProxylessNAS(AlphaStrategy):
    """Trains one path a ~ softmax(alpha) at a time; alpha follows the gradient of binary gates, and of a cost.

    A step of the weights draws one option of each choice. After every few of them alpha takes a step on images of
    its own: along one drawn path, dL/dalpha_i = p_i (b_i - sum_j p_j b_j) with b_j = dL/dg_j (section 3.1), plus the
    gradient of the expected cost E = sum_ij p_ij F_ij (section 3.2). The memory is that of one path; in a step of alpha
    over elastic choices that of the largest one.

    Args:
        space: the supernet.
        paths: `all` updates every option of a choice in each step of alpha. `two`, as in the paper, draws two, and
            changes only how their joint probability is shared between them: less work, a noisier gradient.
        alpha_lr: learning rate of Adam for the architecture parameters.
        alpha_warmup: epochs at the start in which only the weights learn.
        every: steps of the weights per step of alpha, counted anew in each epoch.
        zero_active: what a step of alpha does where the drawn option passes nothing: `paper` treats its output as 0
            like any other, `skip` leaves that choice's alpha alone, as the authors' code intends.
        cost: what the cost is: `macs`, or a file with a table of costs for this space (see
            `espalier.supernets.costs`).
        any_device: accept a table measured on another device than the one that latency is measured on.
        loss: how the expected cost enters: `none`; `multiplicative`, cost_alpha CE (ln E / ln target)^cost_beta;
            `additive`, CE + cost_lambda (E / target - 1); `target`, E is held at or below the target, by dual ascent.
        target: the cost to reach or to compare with, in the table's unit.
        cost_alpha: alpha of the multiplicative loss.
        cost_beta: beta of the multiplicative loss.
        cost_lambda: lambda of the additive loss.
        cost_rate: eta of the dual ascent (see `TargetLoss`).

    Raises:
        UserError: the table of costs does not match the space, or the target is missing or cannot be reached.
    """

    name = "proxyless"

    paths: Literal["all", "two"] = "all"
    alpha_lr: PositiveFloat = 1e-3
    alpha_warmup: NonNegativeInt = 1
    every: PositiveInt = 5
    zero_active: Literal["paper", "skip"] = "paper"
    cost: str = MACS
    any_device: bool = False
    loss: CostLossName = "none"
    target: PositiveFloat | None = None
    cost_alpha: PositiveFloat = 0.2
    cost_beta: PositiveFloat = 0.3
    cost_lambda: NonNegativeFloat = 0.1
    cost_rate: PositiveFloat = 0.1
    optimizer: MaskedAdam = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.optimizer = MaskedAdam(self.alphas.values, lr=self.alpha_lr, betas=BETAS)
        self.costs = costs_from(self.cost, self.space)
        self.cost_loss = cost_loss(
            self.loss,
            self.costs,
            self.region,
            self.target,
            alpha=self.cost_alpha,
            beta=self.cost_beta,
            weight=self.cost_lambda,
            rate=self.cost_rate,
        )

    @property
    def uses_cost(self) -> bool:
        """Unless the loss ignores the cost."""
        return type(self.cost_loss) is not CostLoss

    def check_schedule(self, epochs: int, steps: int) -> None:
        """Raises UserError where alpha would never take a step."""
        check_warmup(self.alpha_warmup, epochs)
        if steps < self.every:
            problem = f"is {self.every}, but an epoch has only {steps} steps"
            raise UserError("supernet.strategy.every", problem, code="out_of_range")

    def weight_gates(self, generator: torch.Generator) -> Gates:
        """One path, drawn from softmax(alpha); choices between edges open all of them."""
        return self._gates(self._draw(self.region, 1, generator))

    def after_step(self, step: Step) -> None:
        """After every `every` steps of the weights, one of alpha, which changes no weights and no statistics."""
        if step.epoch < self.alpha_warmup or (step.index + 1) % self.every or not self.alphas.undecided(self.region):
            return
        region = self.region
        if self.paths == "two":
            for name, options in self._draw(region, 2, step.generator).items():
                region = region.restrict(name, options)
        path = {name: options[0] for name, options in self._draw(region, 1, step.generator).items()}
        learning = {name: region[name] for name in path if not self._skips(name, path[name])}
        gates = self._gates({name: (option,) for name, option in path.items()})
        hard = replace(step, task=replace(step.task, label_smoothing=0.0))
        batch = step.validation()
        ce, b = gate_gradients(self.space, lambda along: hard.loss(batch, {**gates, **along}), path, learning)
        self._learn(region, ce, b)
        self.cost_loss.observe(self.expected_cost(), step.progress)

    def _learn(self, region: Region, ce: Tensor, b: Mapping[str, Tensor]) -> None:
        """One step of the alphas of the choices in `b`, among the options of `region`."""
        values = self.alphas.values
        p = {name: self.alphas.weights(region, name, softmax) for name in values}
        ce = ce.detach().requires_grad_()
        loss = self.cost_loss(ce, self.costs.expected(p))
        slope, *from_cost = torch.autograd.grad(loss, [ce, *values.values()], allow_unused=True, materialize_grads=True)
        gradients = {
            name: g + slope * alpha_gradient(p[name].detach(), b[name].to(g))
            for (name, g) in zip(values, from_cost, strict=True)
            if name in b
        }
        before = {name: values[name].detach().clone() for name in b}
        self.optimizer.step(gradients, {name: region[name] for name in b})
        if self.paths == "two":
            for name in b:
                keep_share(values[name], before[name], region[name])

    def preferred(self) -> Architecture:
        """The likeliest architecture or, under a target, the likeliest that costs what is expected, at most the target.

        The likeliest of all can cost far less than the architectures drawn while the expected cost was held.
        """
        preferences = self.preferences()
        if isinstance(self.cost_loss, TargetLoss):
            if (cheapest := self.costs.cheapest(self.region)) > self.cost_loss.target:
                problem = (
                    f"{self.cost_loss.target:,.10g} is below the cheapest of this part of the space, {cheapest:,.10g}"
                )
                raise UserError("supernet.strategy.target", problem, code="infeasible")
            likeliest = self.costs.cost(argmax(self.space, preferences, self.region))
            limit = min(self.cost_loss.target, max(self.expected_cost(), likeliest))
            return likeliest_within(self.space, preferences, self.region, self.costs, limit)
        return argmax(self.space, preferences, self.region)

    def expected_cost(self) -> float:
        """E over all open options, in the unit of the table."""
        return float(self.costs.expected(self.preferences()))

    def end_epoch(self, epoch: int, epochs: int) -> Mapping[str, float]:
        """Adds `expected_<unit>`, the expected cost, `chosen_<unit>`, that of `preferred`, and the loss's state."""
        row = super().end_epoch(epoch, epochs)
        unit = self.costs.unit
        costs = {f"expected_{unit}": self.expected_cost(), f"chosen_{unit}": self.costs.cost(self.preferred())}
        return {**row, **costs, **self.cost_loss.row()}

    def state_dict(self) -> dict[str, Any]:
        """Also the loss's multiplier."""
        return {**super().state_dict(), "loss": self.cost_loss.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`.

        Raises:
            UserError: it is of another space; the choice is named.
        """
        super().load_state_dict(state)
        self.cost_loss.load_state_dict(state["loss"])

    def _skips(self, name: str, option: int) -> bool:
        choice = self.space.choices()[name]
        return self.zero_active == "skip" and isinstance(choice, LayerChoice) and choice.is_zero(option)

    def _draw(self, region: Region, count: int, generator: torch.Generator) -> dict[str, tuple[int, ...]]:
        """Of each undecided choice `count` different options, drawn one after the other from softmax(alpha).

        The largest of alpha plus Gumbel noise are such a draw (Kool, van Hoof & Welling, "Stochastic Beams and Where to
        Find Them", ICML 2019), and all choices share one transfer from the device.
        """
        names = self.alphas.undecided(region)
        if not names:
            return {}
        values = [self.alphas.values[name].detach() for name in names]
        on_cpu = torch.cat(values).double().cpu().split([len(value) for value in values])
        rows = [alpha[list(region[name])] for name, alpha in zip(names, on_cpu, strict=True)]
        logits = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-torch.inf)
        gumbel = -torch.empty_like(logits).exponential_(generator=generator).log()
        drawn = (logits + gumbel).topk(count).indices.tolist()
        return {name: tuple(region[name][i] for i in row) for name, row in zip(names, drawn, strict=True)}

    def _gates(self, drawn: Mapping[str, tuple[int, ...]]) -> dict[str, Gate]:
        def gate(name: str, choice: Choice) -> Gate:
            options = self.region[name]
            if isinstance(choice, InputChoice) and choice.edges and len(options) > 1:
                return choice.open(options)
            return drawn.get(name, options)[0]

        return {name: gate(name, choice) for name, choice in self.space.choices().items()}


@torch.no_grad()
def keep_share(alpha: Tensor, before: Tensor, options: tuple[int, ...]) -> None:
    """Shift the options' alphas by one number, in place, so that together they are as likely as `before`.

        alpha_i <- alpha_i - ln( sum_options e^alpha / sum_options e^before )

    Then the probabilities of all other options stay exactly what they were (section 3.1, two paths).
    """
    index = list(options)
    alpha[index] -= alpha[index].logsumexp(0) - before[index].logsumexp(0)
