"""The costs that a strategy's option `cost` refers to."""

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
        space: whose networks they are.

    Raises:
        UserError: the table does not match the space, or the space's MACs cannot be counted layer by layer.
    """
    if cost == MACS:
        return macs_of(space)
    path = Path(cost)
    if ".csv" not in path.suffixes:
        return read_cost_table(path, space)
    if not isinstance(space, MobileNet):
        problem = f"{path.name} holds latencies of MobileNet's blocks, but {type(space).__name__} has no such blocks"
        raise UserError("supernet.strategy.cost", problem, code="mismatch")
    return pixel1_table(path, space)
