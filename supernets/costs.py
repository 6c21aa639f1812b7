"""What a strategy's option `cost` names."""

from __future__ import annotations

from pathlib import Path

from nas.cost_file import read_cost_table
from nas.cost_model import macs_of
from nas.cost_table import CostTable
from nas.elastic.cost import ElasticCosts
from nas.errors import UserError
from nas.space import SearchSpace
from nas.spaces.mobilenet import MobileNet
from nas.spaces.pixel1 import pixel1_table

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
