"""How well predictors rank the architectures of a benchmark table."""

from __future__ import annotations

import csv
import gzip
import io
import math
import random
import zlib
from pathlib import Path
from typing import Any

from nas.architecture import Architecture
from nas.errors import UserError
from nas.space import SearchSpace
from recipes.context import Context
from recipes.schema import RankSettings
from recipes.stages.correlations import correlation_row


def run(context: Context) -> dict[str, Any]:
    """Draws architectures from the table and correlates each predictor's values with the target column."""
    settings = context.recipe.rank
    assert settings is not None
    chosen = draw_sample(context, settings)
    predictors = context.make_predictors(settings.predictors)
    points: list[dict[str, Any]] = [
        {
            "id": architecture.id,
            "target": target,
            "values": {name: predictor(architecture).value for name, predictor in predictors.items()},
        }
        for architecture, target in context.track(chosen, "rank", len(chosen))
    ]
    targets = [point["target"] for point in points]
    correlations = [
        correlation_row(
            context,
            name,
            [point["values"][name] for point in points],
            targets,
            higher_is_better=predictor.higher_is_better,
        )
        for name, predictor in predictors.items()
    ]
    for point in points:  # JSON has no NaN: a value that is not a number is left out of the plot, not of n
        point["values"] = {name: value for name, value in point["values"].items() if math.isfinite(value)}
    return {
        "table": settings.table.name,
        "target": settings.target,
        "samples": len(points),
        "correlations": correlations,
        "points": points,
    }


def draw_sample(context: Context, settings: RankSettings) -> list[tuple[Architecture, float]]:
    """The architectures to rank, and their target values.

    Raises:
        UserError: the table cannot be used, or is smaller than the sample.
    """
    rows = read_table(settings.table, context.space, settings.target)
    if settings.samples > len(rows):
        raise UserError("rank.samples", f"the table has {len(rows)} architectures, not {settings.samples}")
    return random.Random(context.seed("rank")).sample(rows, settings.samples)


def read_table(path: Path, space: SearchSpace, target: str) -> list[tuple[Architecture, float]]:
    """The architectures of a table, each once, and their target values.

    Raises:
        UserError: the file cannot be read, a column is missing, or a row is not of the space.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError("rank.table", f"{path} cannot be read ({error})") from error
    rows = csv.DictReader(io.StringIO(text))
    columns = rows.fieldnames or []
    if "arch" not in columns:
        raise UserError("rank.table", f"{path} has no column 'arch'", allowed=columns)
    if target not in columns:
        raise UserError("rank.target", f"{path} has no column {target!r}", allowed=columns, given=target)
    parsed: dict[Architecture, float] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{path}, line {number}"
        try:
            value = float(row[target])
        except (TypeError, ValueError) as error:
            raise UserError(where, f"{target} is not a number: {row[target]!r}") from error
        if not math.isfinite(value):
            raise UserError(where, f"{target} is {value}")
        parsed.setdefault(space.parse(row["arch"] or "", where=where), value)
    return list(parsed.items())
