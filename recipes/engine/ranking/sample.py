"""Architectures drawn from a benchmark table."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from espalier.nas.architecture import Architecture
from espalier.nas.benchmark_table import read_table
from espalier.nas.errors import UserError
from espalier.nas.space import SearchSpace

LEAST = 3


@dataclass(frozen=True)
class Sample:
    """Architectures of a benchmark table.

    Attributes:
        targets: the true value of each architecture.
        sampling: how they were drawn, in words.
    """

    targets: dict[Architecture, float]
    sampling: str


def draw_sample(
    path: Path, space: SearchSpace, target: str, samples: int, *, unique: bool = False, seed: int, prefix: str
) -> Sample:
    """Different architectures of a table, drawn uniformly without replacement.

    Args:
        path: the table.
        space: of its architectures.
        target: its column with the true value.
        samples: how many to draw.
        unique: of each isomorphism class draw only from the first architecture of the table.
        seed: of the draw.
        prefix: what comes before the names `table`, `samples` in errors.

    Raises:
        UserError: the table cannot be used, or is smaller than the sample.
    """
    if samples < LEAST:
        problem = f"a ranking needs at least {LEAST} architectures, not {samples}"
        raise UserError(f"{prefix}samples", problem, code="out_of_range")
    table = read_table(path, space, [target], where=f"{prefix}table")
    rows = [(architecture, values[0]) for architecture, values in table.items()]
    what = "architectures"
    if unique:
        rows = list({space.isomorphism_class(row[0]): row for row in reversed(rows)}.values())[::-1]
        what = "architectures that compute different functions"
    if samples > len(rows):
        raise UserError(f"{prefix}samples", f"the table has {len(rows)} {what}, not {samples}", code="too_few")
    sampling = f"{samples:,} of the table's {len(rows):,} {what}, drawn uniformly without replacement, seed {seed}"
    return Sample(dict(random.Random(seed).sample(rows, samples)), sampling)
