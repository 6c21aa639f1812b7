"""Reading tables of costs, of operators or of blocks."""

from __future__ import annotations

from pathlib import Path

from espalier.nas.cost.block_table import is_block_table, parse_block_table
from espalier.nas.cost.table import CostTable, parse_cost_table
from espalier.nas.elastic.cost import ElasticCosts
from espalier.nas.errors import UserError
from espalier.nas.files import read_json
from espalier.nas.space import SearchSpace


def read_cost_table(path: Path, space: SearchSpace) -> CostTable | ElasticCosts:
    """The costs in a file: of operators (`nas.cost.table`) or of blocks (`nas.cost.block_table`).

    Args:
        path: the file.
        space: the space that the table must be of.

    Raises:
        UserError: the file is missing, has another format, or is of another space.
    """
    if not path.is_file():
        raise UserError(
            "supernet.strategy.cost",
            f"there is no file {path}; allowed: macs, or the path of a table of costs",
            code="not_found",
        )
    value = read_json(path)
    if is_block_table(value):
        return parse_block_table(value, space, where=str(path)).costs(space)
    return parse_cost_table(value, space, where=str(path))
