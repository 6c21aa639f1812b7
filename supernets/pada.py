"""PA&DA: Lu et al., "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS", CVPR 2023."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor

from espalier.nas.data.batches import Order
from espalier.nas.data.importance import Average, Draws, ImportanceSampler
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates
from espalier.nas.task import Classification
from espalier.supernets.constraints import rejection_sample, satisfies_constraints
from espalier.supernets.entropy import mean_entropy
from espalier.supernets.option_importance import OptionImportance, ParameterFree, Places, Scale, Scope, Statistic
from espalier.supernets.pada_options import FROM_MODE, Mode, Reweight, Tau, Unsampled, check_options, fill
from espalier.supernets.spos import SinglePathOneShot


@dataclass(kw_only=True, eq=False)
class PADA(SinglePathOneShot):
    """Paths and images with large gradients are drawn more often, which lowers the variance of the gradient.

    Option o of a choice is drawn with p_o = tau G_o / sum G + (1 - tau) / K, where G_o is the norm of the gradient of
    its weights (see `Statistic`), and image i with q_i = tau h_i / sum h + (1 - tau) / N, where

        h_i = ||dL_i / dz_i||_2 = ||softmax(z_i) - t_i||_2,

    bounds the norm of its gradient up to a constant (Katharopoulos & Fleuret, ICML 2018). Both are updated after each
    epoch, and tau grows linearly from 0. Choices between inputs and of values have no weights of their own, and are
    drawn uniformly. Neither costs another pass through the network.

    The mode `reference` does what the authors' code does. It uses no importance weights, so that its gradient is not
    that of the mean loss, and towards its end it hardly ever draws an option without weights. `corrected` weights the
    losses by 1 / (N q_i), keeps tau below 1, and compares weights of different sizes fairly. Each difference is an
    option of its own; None takes the mode's value.

    Args:
        space: the supernet.
        mode: sets all options that are None.
        paths: sample paths by importance.
        data: sample images by importance.
        tau_paths: what tau of the paths grows to: at epoch e of E it is tau_paths e / E.
        tau_data: the same for the images.
        tau_lag: 1 draws with the tau of the epoch before.
        scope: see `Statistic`.
        scale: see `Statistic`.
        places: see `Statistic`.
        parameter_free: see `Statistic`.
        average: how an epoch's observations become an importance, for paths and images; see `Statistic` and
            `ImportanceSampler`.
        carry: whether what an epoch has not drawn keeps its importance; see `Statistic` and `ImportanceSampler`.
        draws: how images are drawn, see `ImportanceSampler`.
        reweight: `data` weights the loss of image i by 1 / (N q_i).
        unsampled: `freeze` leaves weights off the path alone; `decay` gives them a gradient of 0, so that momentum and
            weight decay still move them.

    Raises:
        UserError: the options do not go together, or leave nothing to sample.
    """

    name = "pada"

    mode: Mode = "corrected"
    paths: bool = True
    data: bool = True
    tau_paths: Tau = FROM_MODE
    tau_data: Tau = FROM_MODE
    tau_lag: Literal[0, 1] = FROM_MODE
    scope: Scope = FROM_MODE
    scale: Scale = FROM_MODE
    places: Places = FROM_MODE
    parameter_free: ParameterFree = FROM_MODE
    average: Average = FROM_MODE
    carry: bool = FROM_MODE
    draws: Draws = FROM_MODE
    reweight: Reweight = FROM_MODE
    unsampled: Unsampled = FROM_MODE

    def __post_init__(self) -> None:
        super().__post_init__()
        given = fill(self, self.mode)
        check_options(given, paths=self.paths, data=self.data, reweight=self.reweight, tau_data=self.tau_data)
        self._parameters = list(self.space.parameters())
        self._progress = 0.0
        self._cumulative: dict[tuple[str, tuple[int, ...]], list[float] | None] = {}
        self.importance = self._option_importance() if self.paths else None
        self.sampler = (
            ImportanceSampler(draws=self.draws, average=self.average, carry=self.carry) if self.data else None
        )
        if not self.data and not self._can_tell_options_apart():
            problem = "no choice of the space has options that differ in their weights, and data is false"
            raise UserError("supernet.strategy.paths", problem, code="unsupported")

    def _option_importance(self) -> OptionImportance:
        statistic = Statistic(
            scope=self.scope,
            scale=self.scale,
            places=self.places,
            average=self.average,
            carry=self.carry,
            parameter_free=self.parameter_free,
        )
        return OptionImportance(self.space, statistic)

    def _can_tell_options_apart(self) -> bool:
        return self.importance is not None and any(
            self.importance.distinguishes(name, options) for name, options in self.region.items()
        )

    @property
    def image_order(self) -> Order | None:
        """The sampler of images."""
        return self.sampler

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Set the tau of the epoch."""
        self._progress = max(0, epoch - self.tau_lag) / epochs
        self._cumulative.clear()
        if self.sampler is not None:
            self.sampler.tau = self.tau_data * self._progress

    def distributions(self) -> dict[str, Tensor]:
        """The distribution p of each choice that is not drawn uniformly, float64 `(options,)`, 0 outside the region."""
        found = {}
        for name, options in self.region.items():
            p = self._distribution(name, options)
            if p is not None:
                row = torch.zeros(len(self.space.choices()[name].options), dtype=torch.float64)
                row[list(options)] = torch.tensor(p, dtype=torch.float64)
                found[name] = row
        return found

    def _distribution(self, name: str, options: tuple[int, ...]) -> list[float] | None:
        tau = self.tau_paths * self._progress
        return None if self.importance is None else self.importance.distribution(name, options, tau)

    def weight_gates(self, generator: torch.Generator) -> dict[str, int]:
        """One option of each choice, drawn by its importance; drawn again where the space does not contain the path.

        Raises:
            UserError: it contains nothing, or hardly anything, of the region.
        """
        return rejection_sample(
            lambda: self._draw(generator),
            lambda gates: satisfies_constraints(self.space, gates),
            where="supernet.strategy",
            problem=f"{self.name} finds no path through the options that are open",
        )

    def _draw(self, generator: torch.Generator) -> dict[str, int]:
        """Inverse transform sampling, from the same random numbers as a uniform path."""
        draws = torch.rand(len(self.region), generator=generator, dtype=torch.float64).tolist()
        gates = {}
        for u, (name, options) in zip(draws, self.region.items(), strict=True):
            key = (name, options)
            if key not in self._cumulative:
                p = self._distribution(name, options)
                self._cumulative[key] = None if p is None else list(accumulate(p))
            ends = self._cumulative[key]
            index = int(u * len(options)) if ends is None else min(bisect_right(ends, u), len(options) - 1)
            gates[name] = options[index]
        return gates

    def path_loss(self, task: Classification, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean of w_i L_i, divided by the number of images and not by the sum of weights, which would be biased."""
        if self.sampler is None:
            return task.loss(logits, targets)
        weights = self.sampler.observe(task.residuals(logits, targets).norm(dim=1))
        if weights is None or self.reweight == "none":
            return task.loss(logits, targets)
        return (weights * task.losses(logits, targets)).mean()

    def before_update(self, paths: Sequence[Gates]) -> None:
        """Observe the norms of the gradients, after clipping, as in the authors' code."""
        if self.importance is not None:
            for path in paths:
                self.importance.observe(path)
        if self.unsampled == "decay":
            for parameter in self._parameters:
                if parameter.grad is None:  # which optimisers skip
                    parameter.grad = torch.zeros_like(parameter)

    def end_epoch(self, epoch: int, epochs: int) -> Mapping[str, float]:
        """Update the importances.

        Returns:
            `entropy` of the options as they were drawn (1 is uniform), the share of `unique_images` seen, and the
            `effective_images`, as a share of those drawn.
        """
        row: dict[str, float] = {}
        if self.importance is not None:
            names = [name for name in self.region.undecided if self.importance.distinguishes(name, self.region[name])]
            drawn = {name: torch.full((n := len(self.region[name]),), 1 / n) for name in names} | self.distributions()
            entropy = mean_entropy(drawn, self.region)
            row |= {} if entropy is None else {"entropy": entropy}
            self.importance.end_epoch()
            self._cumulative.clear()
        if self.sampler is not None:
            coverage = self.sampler.end_epoch()
            row |= {"unique_images": coverage.unique, "effective_images": coverage.effective}
        return row

    def state_dict(self) -> dict[str, Any]:
        """The region, both importances, and how far tau has grown."""
        parts = {"importance": self.importance, "sampler": self.sampler}
        states = {key: part.state_dict() for key, part in parts.items() if part is not None}
        return {**super().state_dict(), **states, "progress": self._progress}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`.

        Raises:
            UserError: it is of another space or of other images, or of other options.
        """
        super().load_state_dict(state)
        for key, part in {"importance": self.importance, "sampler": self.sampler}.items():
            if (part is None) != (key not in state):
                raise UserError(f"checkpoint.{key}", "saved with other values of paths and data", code="mismatch")
            if part is not None:
                part.load_state_dict(state[key])
        self._progress = state["progress"]
        self._cumulative.clear()
