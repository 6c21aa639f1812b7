"""Gates: the weight of each option of each choice in one forward pass, `supernet(x, gates)`.

Supernet methods differ in the gates that they produce. A gate is either an integer (a single path: the other options
are not run) or a `Mixture` (a weighted sum of the active options).
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
        active: indices of the options to run, in increasing order; all other options have weight 0. It is plain
            Python, so that deciding what to run needs no test on a tensor, which would synchronise the device and
            break the graph.

    Raises:
        ValueError: the weights are not a vector, or `active` is not increasing and within the options.
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
