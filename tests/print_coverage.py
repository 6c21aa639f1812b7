"""Print which share of the product's lines the tests have run: `python tests/print_coverage.py FILE.json`.

SlipCover writes the file. It names a file by the path of the import, below `src/espalier`, or, where nothing has
imported it, by the folder's path; both are one file. Lines that only other processes run, such as a command that a test
starts and kills, are not seen.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SHOWN = 10
"""How many files, those with the least share of covered lines first."""


def merged(files: dict[str, dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """For each file of the product, the number of its lines that have run and of all its lines."""
    run: dict[str, set[int]] = {}
    lines: dict[str, set[int]] = {}
    for path, seen in files.items():
        name = path.removeprefix("src/espalier/")
        run.setdefault(name, set()).update(seen["executed_lines"])
        lines.setdefault(name, set()).update(seen["executed_lines"], seen["missing_lines"])
    return {name: (len(run[name]), len(lines[name])) for name in lines}


def table(files: dict[str, tuple[int, int]]) -> list[str]:
    """A line for each of the least covered files, and one for all."""
    counted = {name: count for name, count in files.items() if count[1]}
    least = sorted(counted, key=lambda name: (counted[name][0] / counted[name][1], name))[:SHOWN]
    rows = [f"{100 * counted[name][0] / counted[name][1]:5.1f} %  {name}" for name in least]
    run, lines = (sum(column) for column in zip(*counted.values(), strict=True))
    return [
        *rows,
        f"{100 * run / lines:5.1f} %  of all {lines:,} lines of {len(counted)} files (above: the least covered)",
    ]


if __name__ == "__main__":
    print("\n".join(table(merged(json.loads(Path(sys.argv[1]).read_text())["files"]))))
