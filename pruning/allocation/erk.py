"""ERK: Evci et al., "Rigging the Lottery: Making All Tickets Winners", ICML 2020; ER is of Mocanu et al., 2018."""

from __future__ import annotations

import math

from pydantic import PositiveFloat

from espalier.nas.arguments import checked_arguments
from espalier.pruning.allocation.rounding import keeps_at, proportional_shares, round_to_total, zeros_of
from espalier.pruning.weights import Weights


@checked_arguments
def erk(weights: Weights, sparsity: float, *, kernel: bool = True, power: PositiveFloat = 1.0) -> dict[str, int]:
    """Erdős-Rényi(-Kernel): small layers stay denser.

        density_l = min(1, ε p_l^power),  p_l = (n_out + n_in + k_h + k_w) / (n_out n_in k_h k_w)

    with the ε at which the densities add up to the sparsity. What exceeds a dense layer is given to the others.

    Args:
        weights: by name; left as they are.
        sparsity: S, at least 0 and below 1.
        kernel: without it p_l = (n_out + n_in) / (n_out n_in), the older ER.
        power: exponent of the densities; 0.5, for example, makes them more even.

    Raises:
        UserError: an option is out of range, or the sparsity cannot be reached.
    """
    keeps = keeps_at(weights, sparsity)
    shapes = [tuple(weight.shape) for weight in weights.values()]
    sizes = [math.prod(shape) for shape in shapes]
    q = [raw_density(shape, kernel=kernel) ** power * size for shape, size in zip(shapes, sizes, strict=True)]
    return zeros_of(weights, round_to_total(proportional_shares(q, keeps, [1] * len(sizes), sizes), keeps))


def raw_density(shape: tuple[int, ...], *, kernel: bool = True) -> float:
    """p_l = Σ dims / Π dims of a weight's shape `(out, in, *kernel)`, of `(out, in)` alone without the kernel."""
    dims = shape if kernel else shape[:2]
    return sum(dims) / math.prod(dims)
