"""How many evaluations searches of NAS-Bench-201 need, replayed from its table, and how much virtual GPU time.

Each search sees the validation accuracy of what it evaluates, and no test accuracy. It is judged by the first
evaluation whose test accuracy is within 0.3 and 0.1 points of the table's best. Evaluations that are spared do not
count: scores and filters cost seconds, a training hours. `never` counts the runs that did not get there within the
budget; in the quartiles they stand at infinity.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from common import print_machine, print_table

from espalier.nas.architecture import Architecture
from espalier.nas.benchmark_table import read_table
from espalier.nas.measurement import Estimate
from espalier.nas.objective import Evaluator
from espalier.nas.search.loop import Search
from espalier.nas.search.replay import VirtualClock, replay
from espalier.nas.search.settings import SearchSettings
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.predictors.surrogate import Surrogate

T = TypeVar("T")
MARGINS = (0.3, 0.1)
"""Points below the best test accuracy of the table."""
COST = "params"
"""The one score that the table itself has."""


@dataclass(frozen=True)
class Contestant:
    """A way to search. settings: of the search. surrogate: arguments of the surrogate, where one is used."""

    settings: Mapping[str, Any]
    surrogate: Mapping[str, Any] = field(default_factory=dict)


def contestants(scores: Sequence[str]) -> dict[str, Contestant]:
    """By name: the samplers alone, then each with the help of the scores that there are."""
    evolution = {"sampler": "regularized_evolution"}
    plain = {
        "random": Contestant({"sampler": "random"}),
        "tpe": Contestant({"sampler": "tpe"}),
        **{
            f"evolution {p}/{s}": Contestant({**evolution, "population_size": p, "sample_size": s})
            for p, s in ((100, 10), (50, 10), (20, 10), (10, 5), (10, 10))
        },
    }
    evolution |= {"population_size": 10, "sample_size": 10}  # the best of those
    helped: dict[str, Contestant] = {}
    for score in scores:
        start = {"by": score, "candidates": 1000, "best": 10}
        guide = {"by": score, "proposals": 10}
        helped |= {
            f"random, guide {score}": Contestant({"sampler": "random", "guide": guide}),
            f"evolution, guide {score}": Contestant({**evolution, "guide": guide}),
            f"evolution, start {score}": Contestant({**evolution, "warm_start": start}),
            f"evolution, start and guide {score}": Contestant({**evolution, "warm_start": start, "guide": guide}),
            f"evolution, filter {score}": Contestant({**evolution, "filters": [{"by": score}]}),
            f"surrogate with scores, start {score}": Contestant(
                {"sampler": "surrogate", "warm_start": start}, {"scores": scores}
            ),
        }
    learnt = {
        "evolution, guide surrogate": Contestant({**evolution, "guide": {"by": "surrogate"}}),
        "surrogate alone": Contestant({"sampler": "surrogate"}),
        "surrogate alone, forest": Contestant({"sampler": "surrogate"}, {"model": "forest"}),
        "surrogate with scores": Contestant({"sampler": "surrogate"}, {"scores": scores}),
    }
    return {**plain, **helped, **learnt}


class TableScore:
    """A predictor that looks its values up."""

    unit = ""
    higher_is_better = True

    def __init__(self, name: str, values: Mapping[Architecture, float]) -> None:
        self.name = name
        self._values = values

    def __call__(self, architecture: Architecture) -> Estimate:
        """The value in the table, NaN where there is none."""
        return Estimate(self.name, self._values.get(architecture, math.nan), self.unit, self.higher_is_better)


@dataclass(frozen=True)
class Benchmark:
    """The table: validation accuracy and seconds, test accuracy, and scores by name."""

    space: NasBench201
    evaluations: Mapping[Architecture, tuple[float, float]]
    test: Mapping[Architecture, float]
    scores: Mapping[str, TableScore]


@cache
def load(table: Path, scores: Path | None) -> Benchmark:
    """Read the table and, where there is one, the file of scores."""
    with torch.device("meta"):
        space = NasBench201()
    rows = read_table(table, space, ("c10_valid", "c10_test", "c10_train_sec", "params_c10"))
    found = {COST: TableScore(COST, {a: row[3] for a, row in rows.items()})}
    if scores is not None:
        with scores.open() as file:
            names = [name for name in file.readline().strip().split(",") if name not in ("arch", "index")]
        columns = read_table(scores, space, names)
        found |= {name: TableScore(name, {a: row[i] for a, row in columns.items()}) for i, name in enumerate(names)}
    return Benchmark(space, {a: (r[0], r[2]) for a, r in rows.items()}, {a: r[1] for a, r in rows.items()}, found)


class UntilFound:
    """A `Track` that ends the search when the goal is reached, and knows when each margin was."""

    def __init__(self, search: Search, test: Mapping[Architecture, float]) -> None:
        self._search, self._test = search, test
        self._best = max(test.values())
        self.found: dict[float, tuple[float, float]] = {margin: (math.inf, math.inf) for margin in MARGINS}

    def __call__(self, steps: Iterable[T], description: str, total: int, *, done: int = 0) -> Iterator[T]:
        """The steps, up to the one that reaches the goal."""
        if description != "search":
            yield from steps
            return
        for count, candidate in enumerate(steps, start=1):
            yield candidate
            reached = self._test[candidate.architecture]  # type: ignore[attr-defined]
            for margin in MARGINS:
                if math.isinf(self.found[margin][0]) and reached >= self._best - margin - 1e-9:
                    self.found[margin] = (count, self._search.clock() / 3600)
            if all(math.isfinite(evaluations) for evaluations, _ in self.found.values()):
                return


def run(table: Path, scores: Path | None, contestant: Contestant, trials: int, seed: int) -> list[tuple[float, float]]:
    """One search; evaluations and virtual hours to each margin."""
    benchmark, clock = load(table, scores), VirtualClock()
    directions = {name: "maximize" if s.higher_is_better else "minimize" for name, s in benchmark.scores.items()}
    evaluators = {name: Evaluator(name, directions[name], s) for name, s in benchmark.scores.items()}  # type: ignore[arg-type]
    evaluators["accuracy"] = replay("accuracy", "maximize", benchmark.evaluations, clock)
    options = dict(contestant.surrogate)
    options["scores"] = [benchmark.scores[name] for name in options.get("scores", ())]
    with tempfile.TemporaryDirectory() as folder:
        search = Search(
            benchmark.space,
            evaluators,
            SearchSettings(trials=trials, objectives=("accuracy",), **contestant.settings),
            path=Path(folder) / "study.journal",
            name="replay",
            seed=10_000 * seed,
            surrogate=Surrogate(benchmark.space, seed=seed, **options),
            clock=clock,
        )
        until_found = UntilFound(search, benchmark.test)
        search.run(track=until_found)
    return list(until_found.found.values())


def quartiles(values: Sequence[float]) -> str:
    """Median with the quartiles."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), method="higher")
    return f"{middle:.0f} ({low:.0f}-{high:.0f})"


def row(name: str, found: Sequence[list[tuple[float, float]]]) -> list[str]:
    """A line of the table."""
    cells = [name]
    for i in range(len(MARGINS)):
        evaluations = [run[i][0] for run in found]
        hours = [run[i][1] for run in found]
        never = sum(map(math.isinf, evaluations))
        cells += [quartiles(evaluations), f"{np.median(hours):.0f}", str(never)]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=Path("../shared/data/nasbench201_cifar10.csv.gz"))
    parser.add_argument("--scores", type=Path, help="a CSV file: a column arch, and one for each score, upwards")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--trials", type=int, default=1000, help="the budget of each search")
    parser.add_argument("--only", nargs="*", default=[], help="contestants whose names contain one of these")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with one thread")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print_machine(options.jobs)
    known = contestants(list(load(options.table, options.scores).scores))
    chosen = {n: c for n, c in known.items() if not options.only or any(part in n for part in options.only)}
    rows = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for name, contestant in chosen.items():
            futures = [
                pool.submit(run, options.table, options.scores, contestant, options.trials, seed)
                for seed in range(options.seeds)
            ]
            rows.append(row(name, [future.result() for future in futures]))
            print(rows[-1], flush=True)
    header = ["search"]
    for margin in MARGINS:
        header += [f"evaluations to {margin}", "hours", "never"]
    print_table(f"median (quartiles) over {options.seeds} seeds, budget {options.trials}", header, rows)


if __name__ == "__main__":
    main()
