"""Tables of a benchmark: read whole, refused by line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from espalier.nas.benchmark_table import read_table
from espalier.nas.errors import Code
from espalier.nas.spaces.nasbench201 import NasBench201
from user_errors import user_error

CELL = "|none~0|+|none~0|none~1|+|none~0|none~1|{}~2|"
ROWS = f"arch,good,bad\n{CELL.format('none')},1.5,x\n{CELL.format('skip_connect')},2,nan\n"


@pytest.fixture
def space() -> NasBench201:
    return NasBench201((1, 8, 8), 10, channels=2, cells=1)


@pytest.mark.parametrize("packed", [False, True])
def test_architectures_and_their_values(space: NasBench201, tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(ROWS.encode()) if packed else ROWS.encode())
    table = read_table(path, space, ["good", "good"])
    assert list(table.values()) == [(1.5, 1.5), (2.0, 2.0)]
    assert [space.format(architecture) for architecture in table] == [CELL.format("none"), CELL.format("skip_connect")]


@pytest.mark.parametrize(
    ("name", "content", "column", "where", "code", "says"),
    [
        ("no.csv", None, "good", "table", "unreadable", "no.csv"),
        ("t.csv.gz", b"plain", "good", "table", "unreadable", "t.csv.gz"),
        ("t.csv", b"\xff\xfe", "good", "table", "unreadable", "t.csv"),
        ("t.csv", b"", "good", "table", "unknown", "'arch'"),
        ("t.csv", ROWS.encode(), "god", "table", "unknown", "'good'"),
        ("t.csv", ROWS.encode(), "bad", "t.csv, line 2", "invalid", "'x'"),
        ("t.csv", ROWS.replace(",x", ",1").encode(), "bad", "t.csv, line 3", "invalid", "nan"),
        ("t.csv", (ROWS + ROWS.splitlines()[1]).encode(), "good", "t.csv, line 4", "conflict", "line 2"),
        ("t.csv", b"arch,good\nnonsense,1\n", "good", "t.csv, line 2", "invalid", "'nonsense'"),
    ],
)
def test_what_cannot_be_used_is_named(
    space: NasBench201,
    tmp_path: Path,
    *,
    name: str,
    content: bytes | None,
    column: str,
    where: str,
    code: Code,
    says: str,
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with user_error(where, code, says=says):
        read_table(path, space, [column])
