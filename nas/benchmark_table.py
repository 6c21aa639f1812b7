"""Tables of a benchmark, such as NAS-Bench-201: measured values of many architectures of a space."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.files import read_text
from espalier.nas.space import SearchSpace

Table = dict[Architecture, tuple[float, ...]]
"""The values of the requested columns, by architecture."""


def read_table(path: Path, space: SearchSpace, columns: Sequence[str], *, where: str = "table") -> Table:
    """The architectures of a table with their values.

    Args:
        path: a CSV file, gzipped or not, with a column `arch` in the notation of the space.
        space: the space of the architectures.
        columns: the names of the columns to read; all their values must be finite numbers.
        where: the key that holds the path, for errors.

    Raises:
        UserError: the file cannot be read, a column is missing, or a row has no number, an architecture that is not in
            the space, or one that an earlier row has.
    """
    text = read_text(path, where=where)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    rows = csv.DictReader(io.StringIO(text))
    present = rows.fieldnames or []
    for column in ("arch", *columns):
        if column not in present:
            raise UserError(where, f"{path} has no column {column!r}", allowed=present, given=column)
    table: Table = {}
    lines: dict[Architecture, int] = {}
    for number, row in enumerate(rows, start=2):
        line = f"{path}, line {number}"
        values = tuple(_number(row[column], column, line) for column in columns)
        architecture = space.parse(row["arch"] or "", where=line)
        if architecture in table:
            raise UserError(line, f"has the same architecture as line {lines[architecture]}", code="conflict")
        table[architecture], lines[architecture] = values, number
    return table


def _number(text: str | None, column: str, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError as error:
        raise UserError(where, f"{column} must be a number, not {text!r}") from error
    if not math.isfinite(value):
        raise UserError(where, f"{column} must be finite, not {value}")
    return value
