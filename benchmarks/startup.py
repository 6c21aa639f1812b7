"""How long the command line takes to answer, beside a bare interpreter and the libraries it cannot do without."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from common import interleave, median_ms, median_ratio, print_machine, print_table

NAS = str(Path(sys.executable).with_name("nas"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import typer'": [sys.executable, "-c", "import typer"],
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    "nas --help": [NAS, "--help"],
    "nas ls": [NAS, "ls"],
    "nas run quickstart --dry-run": [NAS, "run", "quickstart", "--dry-run"],
}


def process(command: list[str]) -> Callable[[], object]:
    """A function that runs the command to its end, and fails if it fails."""
    return lambda: subprocess.run(command, check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    print_machine(options.threads)
    times = interleave({name: process(command) for name, command in COMMANDS.items()}, rounds=options.rounds)
    baselines = ("python -c pass", "python -c 'import typer'")
    rows = [
        [name, median_ms(seconds), *(median_ratio(seconds, times[baseline]) for baseline in baselines)]
        for name, seconds in times.items()
    ]
    title = f"ms from start to exit, median (min-max), n = {options.rounds}; ratios of medians with 95 % intervals"
    print_table(title, ["command", "ms", "/ pass", "/ typer"], rows)


if __name__ == "__main__":
    main()
