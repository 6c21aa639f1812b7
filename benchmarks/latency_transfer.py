"""How well the latencies of a new device are predicted from 10 or 20 measurements on it and the tables of others.

Each device of the table is the new one in turn, and all others are known. The measured cells are drawn at random, or
spread over what the other devices say of 1,000 random cells; the predictions are judged on 200 cells that nothing has
seen. MACs and the best source (the one that ranks the measured cells best) are fitted by a straight line between
logarithms; the Gaussian process without sources has the measured cells, their MACs, parameters and operations. Cells
without a way from input to output are left out: two devices report next to no time for them. Every number is the mean
over seeds, with the standard deviation. The coverage asked for is n / (n + 1) below 19 measurements, else 0.95.
"""

from __future__ import annotations

import argparse
import csv
import functools
import gzip
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import print_machine, print_table
from scipy.stats import spearmanr

from espalier.nas.architecture import Architecture
from espalier.nas.measurement import Estimate
from espalier.nas.predictor import Learner, Predictor
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.predictors.cell_graph import live_edges
from espalier.predictors.latency import Guides, LatencyPredictor, spread

POOL, HELD_OUT = 1000, 200
Columns = dict[str, dict[Architecture, float]]
Results = Mapping[tuple[str, str], Mapping[str, Sequence[tuple[float, float, float]]]]


class Known:
    """A column as a predictor."""

    higher_is_better = False

    def __init__(self, name: str, column: dict[Architecture, float], unit: str = "ms") -> None:
        self.name, self.unit = name, unit
        self._column = column

    def __call__(self, architecture: Architecture) -> Estimate:
        return Estimate(self.name, self._column[architecture], self.unit, self.higher_is_better)


class Judge:
    """The predictors of one new device, by name: each made from the measured history."""

    def __init__(self, space: NasBench201, device: str, columns: Columns, macs: Predictor, params: Predictor) -> None:
        self._space, self._macs, self._params = space, macs, params
        self.truth = columns[device]
        self.sources = [Known(name, column) for name, column in columns.items() if name != device]

    def contestants(self, measured: Sequence[Architecture]) -> dict[str, Callable[[], Learner]]:
        """From little to all."""
        truths = [self.truth[a] for a in measured]
        best = max(self.sources, key=lambda s: float(spearmanr([s(a).value for a in measured], truths).statistic))
        costs = [self._macs, self._params]
        return {
            "MACs": lambda: LatencyPredictor(self._space, guides=[self._macs], encodings=(), seed=0),
            "best source": lambda: LatencyPredictor(self._space, guides=[best], encodings=(), seed=0),
            "GP, no sources": lambda: LatencyPredictor(
                self._space, guides=costs, linear=("operations",), encodings=("one_hot",), seed=0
            ),
            "all sources": lambda: LatencyPredictor(self._space, guides=self.sources, seed=0),
        }


def judged(learner: Learner, history: Any, held_out: Sequence[Architecture], truth: Any) -> tuple[float, float, float]:
    """Spearman's rho, median relative error, share inside the intervals."""
    learner.fit(history)
    estimates = learner.estimates(held_out)
    y = np.array([truth[a] for a in held_out])
    guess = np.array([e.value for e in estimates])
    low, high = np.array([e.interval for e in estimates]).T
    inside = float(((low <= y) & (y <= high)).mean())
    return float(spearmanr(guess, y).statistic), float(np.median(np.abs(guess / y - 1))), inside


def read(path: Path, cells: Sequence[Architecture]) -> Columns:
    """Milliseconds by device and cell."""
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name != "index"]
    return {name.removesuffix("_ms"): {cells[int(r["index"])]: float(r[name]) for r in rows} for name in names}


def judge_seed(latencies: Path, cells_file: Path, samples: Sequence[int], seed: int) -> list[tuple[Any, ...]]:
    """Rows of measurements, how they were chosen, predictor, device, and what `judged` says, for one draw of cells."""
    torch.set_num_threads(1)
    with torch.device("meta"):
        space = NasBench201((3, 32, 32), 10)
    with gzip.open(cells_file, "rt") as file:
        rows = list(csv.DictReader(file))
    cells = [space.parse(row["arch"]) for row in rows]
    costs = {n: {a: float(r[f"{n}_c10"]) for a, r in zip(cells, rows, strict=True)} for n in ("macs", "params")}
    columns = read(latencies, cells)
    macs, params = (Known(name, costs[name], name) for name in ("macs", "params"))
    order = (cells[i] for i in np.random.default_rng(seed).permutation(len(cells)))
    connected = (cell for cell in order if live_edges(space, cell))
    drawn = [next(connected) for _ in range(POOL + HELD_OUT)]
    pool, held_out = drawn[:POOL], drawn[POOL:]
    found: list[tuple[Any, ...]] = []
    for device in columns:
        judge = Judge(space, device, columns, macs, params)
        seen = Guides(judge.sources)(pool)
        for n in samples:
            chosen = {"random": pool[:n], "spread": [pool[i] for i in spread(seen, n, seed=seed)]}
            for how, measured in chosen.items():
                history = [(a, judge.truth[a]) for a in measured]
                for name, make in judge.contestants(measured).items():
                    if how == "random" or name == "all sources":
                        found.append((n, how, name, device, judged(make(), history, held_out, judge.truth)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latencies", type=Path, required=True, help="CSV of index and milliseconds on each device")
    parser.add_argument("--cells", type=Path, required=True, help="CSV of index and architecture")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--samples", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    started = time.perf_counter()
    one_seed = functools.partial(judge_seed, options.latencies, options.cells, options.samples)
    results: dict[tuple[int, str, str], dict[str, list[tuple[float, float, float]]]] = {}
    with ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn")) as workers:
        for rows in workers.map(one_seed, range(options.seeds)):
            for n, how, name, device, numbers in rows:
                results.setdefault((n, how, name), {}).setdefault(device, []).append(numbers)
    print_machine(1)
    for n in options.samples:
        for title, column, percent in (
            (f"Spearman's rho, {n} measurements", 0, False),
            (f"median relative error (%), {n} measurements", 1, True),
            (f"share inside the intervals (%), {n} measurements", 2, True),
        ):
            print_results(title, {key[1:]: rows for key, rows in results.items() if key[0] == n}, column, percent)
    print(f"\n{options.seeds} seeds, {time.perf_counter() - started:.0f} s")


def print_results(title: str, results: Results, column: int, percent: bool) -> None:
    """A row for each predictor and way to choose what is measured, a column for each device and one for all."""
    devices = list(next(iter(results.values())))
    table = []
    for (how, name), by_device in results.items():
        values = [[numbers[column] for numbers in by_device[device]] for device in devices]
        table.append([how, name, *(cell(v, percent) for v in values), cell([x for v in values for x in v], percent)])
    print_table(title, ["measured", "predictor", *devices, "all"], table)


def cell(values: Sequence[float], percent: bool) -> str:
    """Mean and standard deviation."""
    scale, form = (100, ".1f") if percent else (1, ".3f")
    return f"{scale * np.mean(values):{form}} ± {scale * np.std(values):{form}}"


if __name__ == "__main__":
    main()
