"""What a strategy's option `cost` names."""

from __future__ import annotations

from pathlib import Path

from espalier.nas.cost.files import read_cost_table
from espalier.nas.cost.model import macs_of
from espalier.nas.cost.table import CostTable
from espalier.nas.elastic.cost import ElasticCosts
from espalier.nas.errors import UserError
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.mobilenet import MobileNet
from espalier.nas.spaces.pixel1 import pixel1_table

MACS = "macs"


def costs_from(cost: str, space: SearchSpace) -> CostTable | ElasticCosts:
    """The costs of a space's networks.

    Args:
        cost: `macs`, or a file with a table of costs for this space: JSON as `nas lut build` writes it or, for
            MobileNet at 224 x 224, a CSV file of latencies by block as ProxylessNAS published it (see `pixel1_table`).

    Raises:
        UserError: the table does not fit the space, or the space's MACs cannot be counted layer by layer.
    """
    if cost == MACS:
        return macs_of(space)
    path = Path(cost)
    if ".csv" not in path.suffixes:
        return read_cost_table(path, space)
    if not isinstance(space, MobileNet):
        problem = f"{path.name} has latencies of MobileNet's blocks, which {type(space).__name__} is not made of"
        raise UserError("supernet.strategy.cost", problem)
    return pixel1_table(path, space)
