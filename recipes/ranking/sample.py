"""Architectures drawn from a benchmark table."""

from __future__ import annotations

import random
from pathlib import Path

from nas.architecture import Architecture
from nas.errors import UserError
from nas.space import SearchSpace
from nas.table import read_table

LEAST = 3


def draw_sample(
    path: Path, space: SearchSpace, target: str, samples: int, *, seed: int, prefix: str
) -> dict[Architecture, float]:
    """Different architectures of a table, drawn at random, and their target values.

    Args:
        prefix: what comes before the names `table`, `samples` in errors.

    Raises:
        UserError: the table cannot be used, or is smaller than the sample.
    """
    if samples < LEAST:
        raise UserError(f"{prefix}samples", f"a ranking needs at least {LEAST} architectures, not {samples}")
    table = read_table(path, space, [target], where=f"{prefix}table")
    if samples > len(table):
        raise UserError(f"{prefix}samples", f"the table has {len(table)} architectures, not {samples}")
    rows = [(architecture, values[0]) for architecture, values in table.items()]
    return dict(random.Random(seed).sample(rows, samples))
