"""Multiply-accumulates of the operators of a space: a table of costs that needs no measurement."""

from __future__ import annotations

import copy

from espalier.nas.choices import LayerChoice
from espalier.nas.cost.count import count
from espalier.nas.cost.layer_sites import full_gates, layer_sites
from espalier.nas.cost.table import CostTable, cost_table
from espalier.nas.space import SearchSpace


def macs_table(space: SearchSpace) -> CostTable:
    """Multiply-accumulates for one image, counted operator by operator (see `nas.cost.count.count`); exact.

    Raises:
        UserError: the space has choices that change the operators themselves.
    """
    meta = copy.deepcopy(space).to("meta")
    costs = {
        name: {str(option): 0 for option in choice.options}
        for name, choice in space.choices().items()
        if isinstance(choice, LayerChoice)
    }
    for site in layer_sites(meta):
        for option, operator in meta.get_submodule(site.path).candidates.items():  # type: ignore[union-attr, operator]
            costs[site.choice][option] += count(operator, site.input_shape).macs
    table = cost_table(
        space, unit="macs", fixed=0, costs=costs, provenance={"counted": "espalier.nas.cost.count"}, where="macs"
    )
    some = meta.architecture(full_gates(meta))  # any architecture gives the same rest
    fixed = count(meta.build(some), space.input_shape).macs - table.cost(some)
    return cost_table(space, unit="macs", fixed=fixed, costs=costs, provenance=table.provenance, where="macs")
