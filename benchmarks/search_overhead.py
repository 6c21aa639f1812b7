"""What the search loop costs for each architecture, beside the same study in bare Optuna.

Four contestants take turns, 20 architectures at a time. Bare Optuna makes as many proposals as the search needed for
its architectures (the search does not evaluate one twice, so it needs more proposals than architectures). With one
seed all four make the same proposals, until the search gives up on a sampler that repeats itself.

    memory    study.ask and study.tell with the same sampler, study in memory: what the sampler costs
    journal   the same, kept in a file as a run folder's study is
    Search    espalier.nas.search.loop.Search, kept in a file as a run folder's study is
    file      the same as memory, kept in Optuna's own JournalFileBackend; for the first 100 architectures only
"""

from __future__ import annotations

import argparse
import csv
import gzip
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import optuna
import torch
from common import mean_ratio, print_machine, print_table
from optuna.storages.journal import JournalFileBackend

from espalier.nas.architecture import Architecture
from espalier.nas.measurement import Estimate
from espalier.nas.objective import Evaluator
from espalier.nas.search.loop import Search, SearchSettings
from espalier.nas.search.samplers import make_sampler
from espalier.nas.search.storage import open_storage
from espalier.nas.spaces.nasbench201 import NasBench201

T = TypeVar("T")
Values = Mapping[str, float]
CHUNK = 20
FILE_CHUNKS = 5
"""Optuna's file journal waits for the disk at each change: over whole studies, the benchmark would take an hour."""
STUDIES = (
    ("random", ("accuracy",)),
    ("tpe", ("accuracy",)),
    ("nsga2", ("accuracy",)),
    ("nsga2", ("accuracy", "params")),
    ("regularized_evolution", ("accuracy",)),
)


class Bare:
    """A study that is only asked and told."""

    def __init__(
        self, settings: SearchSettings, lookup: Callable[[Architecture], Values], space: NasBench201, storage: Any
    ) -> None:
        directions: list[Literal["maximize", "minimize"]] = [
            "maximize" if name == "accuracy" else "minimize" for name in settings.objectives
        ]
        self.study = optuna.create_study(storage=storage, directions=directions, sampler=new_sampler(settings))
        self.distributions: dict[str, optuna.distributions.BaseDistribution] = {
            choice.name: optuna.distributions.CategoricalDistribution(choice.options)  # type: ignore[arg-type]
            for choice in space.choices().values()
        }
        self.lookup = lookup
        self.objectives = settings.objectives

    def propose(self, times: int) -> None:
        for _ in range(times):
            trial = self.study.ask(self.distributions)
            values = self.lookup(Architecture(trial.params))
            self.study.tell(trial, [values[name] for name in self.objectives])


class TakingTurns:
    """A `Track` that lets the others do the same number of proposals after each chunk of the search's steps."""

    def __init__(self, search: Search, others: Mapping[str, Bare]) -> None:
        self.search = search
        self.others = others
        self.seconds: dict[str, list[float]] = {name: [] for name in ("Search", *others)}
        self.proposals = 0

    def __call__(self, steps: Iterable[T], description: str, total: int, *, done: int = 0) -> Iterator[T]:
        started = time.perf_counter()
        for count, step in enumerate(steps, start=1):
            yield step
            if count % CHUNK == 0:
                self.seconds["Search"].append(time.perf_counter() - started)
                self._others()
                started = time.perf_counter()

    def _others(self) -> None:
        before, self.proposals = self.proposals, len(self.search.study.get_trials(deepcopy=False))
        for name, bare in self.others.items():
            if name == "file" and len(self.seconds["file"]) == FILE_CHUNKS:
                continue
            started = time.perf_counter()
            bare.propose(self.proposals - before)
            self.seconds[name].append(time.perf_counter() - started)


def new_sampler(settings: SearchSettings) -> optuna.samplers.BaseSampler:
    """The sampler that a search with seed 0 uses."""
    return make_sampler(
        settings.sampler, seed=0, population_size=settings.population_size, sample_size=settings.sample_size
    )


def compete(settings: SearchSettings, lookup: Callable[[Architecture], Values], folder: Path) -> TakingTurns:
    """Run one study in all four ways."""
    with torch.device("meta"):
        space = NasBench201()
    evaluators = {
        "params": Evaluator("params", "minimize", lambda a: Estimate("params", lookup(a)["params"], "", False)),
        "accuracy": Evaluator("accuracy", "maximize", lambda a: Estimate("accuracy", lookup(a)["accuracy"], "", True)),
    }
    backend = JournalFileBackend(str(folder / "optuna.journal"))
    storages = {
        "memory": optuna.storages.InMemoryStorage(),
        "journal": open_storage(None, folder / "bare.journal"),
        "file": optuna.storages.JournalStorage(backend),
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = Search(space, evaluators, settings, path=folder / "study.journal", name="study", seed=0)
    others = {name: Bare(settings, lookup, space, storage) for name, storage in storages.items()}
    turns = TakingTurns(search, others)
    search.run(track=turns)
    return turns


def row(settings: SearchSettings, turns: TakingTurns) -> list[str]:
    """A line of the table; milliseconds for each architecture, over all and over the last 100."""
    ms = {name: 1e3 * np.array(seconds) / CHUNK for name, seconds in turns.seconds.items()}
    last = {name: values[-100 // CHUNK :].mean() for name, values in ms.items()}
    cells = [f"{ms[name].mean():.2f} / {last[name]:.2f}" for name in ("memory", "journal", "Search")]
    return [
        settings.sampler,
        ", ".join(settings.objectives),
        f"{turns.proposals / (CHUNK * len(turns.seconds['Search'])):.2f}",
        *cells,
        f"{ms['file'].mean():.2f}",
        mean_ratio(turns.seconds["Search"], turns.seconds["memory"]),
        mean_ratio(turns.seconds["Search"][:FILE_CHUNKS], turns.seconds["file"]),
    ]


def read_table(path: Path) -> Callable[[Architecture], Values]:
    """Accuracy and parameters from a NAS-Bench-201 table, or made up where there is none."""
    if not path.is_file():
        print(f"objective: made up from a checksum of the architecture ({path} is absent)")
        return _made_up
    with torch.device("meta"):
        space = NasBench201()
    with gzip.open(path, "rt") as file:
        lines = list(csv.DictReader(file))
    print(f"objective: validation accuracy and parameters of {path.name}, {len(lines)} architectures")
    known = {
        space.parse(line["arch"]).id: {"accuracy": float(line["c10_valid"]), "params": float(line["params_c10"])}
        for line in lines
    }
    return lambda architecture: known[architecture.id]


def _made_up(architecture: Architecture) -> Values:
    checksum = zlib.crc32(architecture.to_json().encode())
    convolutions = sum(str(option).startswith("nor_conv") for option in architecture.values())
    return {"accuracy": convolutions + checksum / 2**32, "params": float(convolutions)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="architectures in each study, at least 100")
    parser.add_argument("--table", type=Path, default=Path("../shared/data/nasbench201_cifar10.csv.gz"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print_machine(options.threads)
    lookup = read_table(options.table)
    rows = []
    for sampler, objectives in STUDIES:
        settings = SearchSettings(trials=options.trials, sampler=sampler, objectives=objectives)
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row(settings, compete(settings, lookup, Path(folder))))
    header = [
        "sampler",
        "objectives",
        "proposals",
        "memory",
        "journal",
        "Search",
        "file",
        "Search/memory",
        "Search/file",
    ]
    title = (
        f"ms for each architecture, mean over all {options.trials} / over the last 100 (file: first "
        f"{FILE_CHUNKS * CHUNK});\nproposals for each architecture; ratios of means with 95 % bootstrap intervals, "
        f"n = {options.trials // CHUNK} paired chunks of {CHUNK}"
    )
    print_table(title, header, rows)


if __name__ == "__main__":
    main()
