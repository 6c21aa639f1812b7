"""Gates: how much each option of each choice counts in one forward pass, `supernet(x, gates)`.

Every supernet method is a different producer of gates. A gate is either an integer (one path: the other options
are not run) or a `Mixture` (a weighted sum of the options marked active).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mixture:
    """A weighted sum of options.

    Attributes:
        weights: one weight per option of the choice, shape `(options,)`; gradients flow into it.
        active: indices of the options to run, in increasing order. Static Python, so that no test on a tensor
            (a device synchronisation, a graph break) decides what is run. Options outside it count as weight 0.
    """

    weights: Tensor
    active: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.weights.dim() != 1:
            raise ValueError(f"weights has shape {tuple(self.weights.shape)}, one weight per option is (options,)")
        if list(self.active) != sorted(set(self.active)) or not set(self.active) <= set(range(len(self.weights))):
            raise ValueError(f"active {self.active} are not increasing indices below {len(self.weights)}")


Gate = int | Mixture
Gates = Mapping[str, Gate]
"""One gate per choice of the space, by name."""


def mixture(weights: Tensor) -> Mixture:
    """A mixture in which every option is active."""
    return Mixture(weights, tuple(range(len(weights))))
