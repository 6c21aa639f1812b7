"""PA&DA: Lu et al., "PA&DA: Jointly Sampling PAth and DAta for Consistent NAS", CVPR 2023."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor

from espalier.nas.data.batches import Order
from espalier.nas.data.importance import Average, Draws, ImportanceSampler
from espalier.nas.errors import UserError
from espalier.nas.gates import Gates
from espalier.nas.space import SearchSpace
from espalier.nas.task import Classification
from espalier.supernets.constraints import first_fit, keeps_constraints
from espalier.supernets.entropy import mean_entropy
from espalier.supernets.option_importance import OptionImportance, ParameterFree, Places, Scale, Scope, Statistic
from espalier.supernets.pada_options import Mode, Reweight, Tau, Unsampled, pada_options
from espalier.supernets.spos import SinglePathOneShot


class PADA(SinglePathOneShot):
    """Paths and images with large gradients are drawn more often, which lowers the variance of the gradient.

    Option o of a choice is drawn with p_o = tau G_o / sum G + (1 - tau) / K, where G_o is the norm of the gradient of
    its weights (see `Statistic`), and image i with q_i = tau h_i / sum h + (1 - tau) / N, where

        h_i = ||dL_i / dz_i||_2 = ||softmax(z_i) - t_i||_2,

    bounds the norm of its gradient up to a constant (Katharopoulos & Fleuret, ICML 2018). Both are renewed after each
    epoch, and tau grows linearly from 0. Choices between inputs and of values have no weights of their own, and are
    drawn uniformly. Neither costs another pass through the network.

    The mode `reference` does what the authors' code does. It makes no use of importance weights, so that its gradient
    is not that of the mean loss, and at its end hardly draws an option without weights. `corrected` weighs the losses
    by 1 / (N q_i), keeps tau below 1, and compares weights of different sizes fairly. Each difference is an option of
    its own; null takes what the mode has.

    Args:
        space: the supernet.
        mode: where all other options come from.
        paths, data: what is sampled by importance.
        tau_paths, tau_data: what tau grows to: at epoch e of E it is tau e / E.
        tau_lag: 1 draws with the tau of the epoch before.
        scope, scale, places, parameter_free: of the importance of options, see `Statistic`.
        average, carry: of both importances, see `Statistic` and `ImportanceSampler`.
        draws: of images, see `ImportanceSampler`.
        reweight: `data` weighs the loss of image i by 1 / (N q_i).
        unsampled: what the optimiser does to weights off the path: nothing, or what it does at a gradient of 0.

    Raises:
        UserError: the options do not go together, or leave nothing to do.
    """

    name = "pada"

    def __init__(
        self,
        space: SearchSpace,
        *,
        mode: Mode = "corrected",
        paths: bool = True,
        data: bool = True,
        tau_paths: Tau | None = None,
        tau_data: Tau | None = None,
        tau_lag: Literal[0, 1] | None = None,
        scope: Scope | None = None,
        scale: Scale | None = None,
        places: Places | None = None,
        parameter_free: ParameterFree | None = None,
        average: Average | None = None,
        carry: bool | None = None,
        draws: Draws | None = None,
        reweight: Reweight | None = None,
        unsampled: Unsampled | None = None,
    ) -> None:
        super().__init__(space)
        given: dict[str, Any] = {
            "tau_paths": tau_paths,
            "tau_data": tau_data,
            "tau_lag": tau_lag,
            "scope": scope,
            "scale": scale,
            "places": places,
            "parameter_free": parameter_free,
            "average": average,
            "carry": carry,
            "draws": draws,
            "reweight": reweight,
            "unsampled": unsampled,
        }
        self.options = o = pada_options(mode, given, paths=paths, data=data)
        self._parameters = list(space.parameters())
        self._progress = 0.0
        self._cumulative: dict[tuple[str, tuple[int, ...]], list[float] | None] = {}
        statistic = Statistic(o.scope, o.scale, o.places, o.average, o.carry, o.parameter_free)
        self.importance = OptionImportance(space, statistic) if paths else None
        self.sampler = ImportanceSampler(draws=o.draws, average=o.average, carry=o.carry) if data else None
        if not data and not any(self.importance and self.importance.tells_apart(*item) for item in self.region.items()):
            problem = "no choice of the space has options to tell apart by their weights, and data is false"
            raise UserError("supernet.strategy.paths", problem)

    @property
    def image_order(self) -> Order | None:
        """The sampler of images."""
        return self.sampler

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Take up the tau of the epoch."""
        self._progress = max(0, epoch - self.options.tau_lag) / epochs
        self._cumulative.clear()
        if self.sampler is not None:
            self.sampler.tau = self.options.tau_data * self._progress

    def distributions(self) -> dict[str, Tensor]:
        """P of each choice that importance has a say in, float64 `(options,)`, 0 outside the region."""
        found = {}
        for name, options in self.region.items():
            p = self._distribution(name, options)
            if p is not None:
                row = torch.zeros(len(self.space.choices()[name].options), dtype=torch.float64)
                row[list(options)] = torch.tensor(p, dtype=torch.float64)
                found[name] = row
        return found

    def _distribution(self, name: str, options: tuple[int, ...]) -> list[float] | None:
        tau = self.options.tau_paths * self._progress
        return None if self.importance is None else self.importance.distribution(name, options, tau)

    def weight_gates(self, generator: torch.Generator) -> dict[str, int]:
        """One option of each choice, drawn by its importance; drawn again where the space does not contain the path.

        Raises:
            UserError: it contains nothing, or hardly anything, of the region.
        """
        return first_fit(
            lambda: self._draw(generator),
            lambda gates: keeps_constraints(self.space, gates),
            where="supernet.strategy",
            problem=f"{self.name} finds no path through the options that are open",
        )

    def _draw(self, generator: torch.Generator) -> dict[str, int]:
        """The same draws as those of a uniform path, each mapped to an option by the inverse of its distribution."""
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
        if weights is None or self.options.reweight == "none":
            return task.loss(logits, targets)
        return (weights * task.losses(logits, targets)).mean()

    def before_update(self, paths: Sequence[Gates]) -> None:
        """Take the norms of the gradients, which are clipped by now, as in the authors' code."""
        if self.importance is not None:
            for path in paths:
                self.importance.observe(path)
        if self.options.unsampled == "decay":
            for parameter in self._parameters:
                if parameter.grad is None:  # which optimisers pass over
                    parameter.grad = torch.zeros_like(parameter)

    def end_epoch(self, epoch: int, epochs: int) -> Mapping[str, float]:
        """Renew the importances.

        Returns:
            `entropy` of the options as they were drawn (1 is uniform), the share of `unique_images` seen, and the
            `effective_images`, as a share of those drawn.
        """
        row: dict[str, float] = {}
        if self.importance is not None:
            names = [name for name in self.region.undecided if self.importance.tells_apart(name, self.region[name])]
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
                raise UserError(f"checkpoint.{key}", "of other options of paths and data")
            if part is not None:
                part.load_state_dict(state[key])
        self._progress = state["progress"]
        self._cumulative.clear()
