"""The same sparsity in every layer."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from espalier.nas.arguments import checked_arguments
from espalier.nas.errors import UserError
from espalier.pruning.allocation.rounding import keeps_at, proportional_shares, round_to_total, zeros_of
from espalier.pruning.weights import Weights


@checked_arguments
def uniform(
    weights: Weights,
    sparsity: float,
    *,
    dense_first: bool = False,
    last_at_most: Annotated[float, Field(ge=0, le=1)] | None = None,
) -> dict[str, int]:
    """s_l = S in every layer, or in all but the first and the last.

    Gale et al., "The State of Sparsity in Deep Neural Networks", 2019, keep the first convolution dense and the last
    layer at 80 % or less; the other layers make up for the difference.

    Args:
        weights: by name; left as they are.
        sparsity: S, at least 0 and below 1.
        dense_first: the first layer keeps all its weights.
        last_at_most: the largest sparsity of the last layer; None for no limit.

    Raises:
        UserError: an option is out of range, or the sparsity cannot be reached with these options.
    """
    keeps = keeps_at(weights, sparsity)
    sizes = [weight.numel() for weight in weights.values()]
    low = [1] * len(sizes)
    if dense_first:
        low[0] = sizes[0]
    if last_at_most is not None:
        low[-1] = max(low[-1], math.ceil((1 - last_at_most) * sizes[-1] - 1e-9))
    if sum(low) > keeps:
        problem = f"{sparsity:g} keeps {keeps} weights, but the layers must keep at least {sum(low)}"
        raise UserError("sparsity", problem, code="infeasible")
    return zeros_of(weights, round_to_total(proportional_shares(sizes, keeps, low, sizes), keeps))
