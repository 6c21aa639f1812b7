"""Multiply-accumulates of the operators of a space: the table of costs for which nothing has to be measured."""

from __future__ import annotations

import copy

from nas.choices import LayerChoice
from nas.cost import count
from nas.cost_table import CostTable, cost_table
from nas.places import first_passing, places
from nas.space import SearchSpace


def macs_table(space: SearchSpace) -> CostTable:
    """Multiply-accumulates for one image, counted operator by operator (see `nas.cost.count`): exact, and free.

    Raises:
        UserError: the space has choices that change the operators themselves.
    """
    meta = copy.deepcopy(space).to("meta")
    costs = {
        name: {str(option): 0 for option in choice.options}
        for name, choice in space.choices().items()
        if isinstance(choice, LayerChoice)
    }
    for place in places(meta):
        for option, operator in meta.get_submodule(place.path).candidates.items():  # type: ignore[union-attr, operator]
            costs[place.choice][option] += count(operator, place.input_shape).macs
    table = cost_table(space, unit="macs", fixed=0, costs=costs, provenance={"counted": "nas.cost"}, where="macs")
    some = meta.architecture(
        {n: first_passing(c) if isinstance(c, LayerChoice) else 0 for n, c in meta.choices().items()}
    )
    fixed = count(meta.build(some), space.input_shape).macs - table.cost(some)
    return cost_table(space, unit="macs", fixed=fixed, costs=costs, provenance=table.provenance, where="macs")
