"""How many zeros each layer gets: `(weights, sparsity) -> zeros by name`, exact for every layer and in total.

Of N weights in L layers, K = round((1 - S) N) are kept at the sparsity S, at least one in each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from espalier.pruning.allocation.erk import erk
from espalier.pruning.allocation.lgreco import lgreco
from espalier.pruning.allocation.scored import global_magnitude, lamp
from espalier.pruning.allocation.uniform import uniform

ALLOCATIONS: Mapping[str, Callable[..., dict[str, int]]] = {
    "uniform": uniform,
    "erk": erk,
    "global": global_magnitude,
    "lamp": lamp,
    "lgreco": lgreco,
}
"""Allocations that need only the weights; their keyword-only arguments are their options."""
