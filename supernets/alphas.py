"""Architecture parameters: a vector alpha for each choice, and the gates computed from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from espalier.nas.choices import InputChoice
from espalier.nas.errors import UserError
from espalier.nas.gates import Gate, Mixture
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace

Weigh = Callable[[Tensor], Tensor]
"""Weights of the open options of a choice from their alphas, both `(open options,)`."""
WeighAll = Callable[[list[Tensor]], Sequence[Tensor]]
"""The same for several choices at once."""


class Alphas:
    """One parameter vector `(options,)` for each choice that learns, on the space's device.

    Choices between the outputs of layer choices have no alpha: the strengths of these edges decide, and in training
    all their inputs are open.

    Args:
        space: whose choices they are.
        std: standard deviation of the initial values, drawn from torch's global generator.
    """

    def __init__(self, space: SearchSpace, *, std: float) -> None:
        self._space = space
        self._device = next(space.parameters()).device
        self._indices: dict[tuple[int, ...], Tensor] = {}
        self.values = {
            name: nn.Parameter((std * torch.randn(len(choice.options))).to(self._device))
            for name, choice in space.choices().items()
            if not (isinstance(choice, InputChoice) and choice.edges)
        }

    def parameters(self) -> list[nn.Parameter]:
        """The vectors, in the order of the space's choices."""
        return list(self.values.values())

    def undecided(self, region: Region) -> list[str]:
        """The choices with an alpha and more than one open option."""
        return [name for name in region.undecided if name in self.values]

    def weights(self, region: Region, name: str, weigh: Weigh) -> Tensor:
        """`weigh` of the open options' alphas; exactly 0 for the others, in value and in gradient."""
        return self._spread(region, name, weigh(self._open(region, name)))

    def gates(self, region: Region, weigh: Weigh) -> dict[str, Gate]:
        """A path for each decided choice, a mixture `weigh(alpha)` of the open options for the others."""
        return region_gates(self._space, region, lambda name: self.weights(region, name, weigh))

    def gates_at_once(self, region: Region, weigh: WeighAll) -> dict[str, Gate]:
        """As `gates`, with one call of `weigh` for the open alphas of all undecided choices, as random draws need."""
        names = self.undecided(region)
        rows = weigh([self._open(region, name) for name in names]) if names else ()
        weights = dict(zip(names, rows, strict=True))
        return region_gates(self._space, region, lambda name: self._spread(region, name, weights[name]))

    def _open(self, region: Region, name: str) -> Tensor:
        alpha, options = self.values[name], region[name]
        return alpha if len(options) == len(alpha) else alpha[self._index(options)]

    def _spread(self, region: Region, name: str, weights: Tensor) -> Tensor:
        alpha, options = self.values[name], region[name]
        if len(options) == len(alpha):
            return weights
        return torch.zeros_like(alpha).index_copy(0, self._index(options), weights)

    def _index(self, options: tuple[int, ...]) -> Tensor:
        if options not in self._indices:
            self._indices[options] = torch.tensor(options, device=self._device)
        return self._indices[options]

    def state_dict(self) -> dict[str, Any]:
        """The vectors by choice."""
        return {name: alpha.detach().clone() for name, alpha in self.values.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the vectors.

        Raises:
            UserError: they are of another space, or not finite; the choice is named.
        """
        for name in [*self.values, *state]:
            if name not in state or name not in self.values or state[name].shape != self.values[name].shape:
                problem = "of another space: its choices or options differ"
                raise UserError(f"checkpoint.{name}", problem, code="mismatch")
        with torch.no_grad():
            for name, alpha in self.values.items():
                alpha.copy_(state[name])
        self.check_finite()

    def check_finite(self) -> None:
        """Raises UserError, naming the choice, if an alpha is NaN or infinite."""
        for name, alpha in self.values.items():
            if not bool(alpha.isfinite().all()):
                problem = f"alpha is {alpha.tolist()}; a smaller alpha_lr may help"
                raise UserError(f"supernet.strategy.{name}", problem, code="failed")


def region_gates(space: SearchSpace, region: Region, weights: Callable[[str], Tensor]) -> dict[str, Gate]:
    """Gates that open a region.

    A choice with one option left becomes a path. A choice between the outputs of layer choices opens all its inputs.
    Any other becomes a mixture with `weights(name)`, shape `(options,)`.
    """
    gates: dict[str, Gate] = {}
    for name, choice in space.choices().items():
        options = region[name]
        if len(options) == 1:
            gates[name] = options[0]
        elif isinstance(choice, InputChoice) and choice.edges:
            gates[name] = choice.open(options)
        else:
            gates[name] = Mixture(weights(name), options)
    return gates
