"""TangleNAS against single-path training and a search, on NAS-Bench-Macro, at equal training cost.

All arms train one supernet of entangled layers. Those with a section `select` learn by gradient which layer to take;
the others train single paths, then search by inherited accuracy. Epochs are such that all arms compute equally many
multiply-accumulates in training: a mixture costs as much as the largest network, twice in each step, a path as much as
the mean. What is chosen is looked up in the benchmark's table, with the share of all networks that are better, and
the number of random networks that would have to be trained to expect one as good. Every run is a recipe in a folder of
its own, so that a killed comparison goes on.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espalier.nas.benchmark_table import read_table
from espalier.nas.elastic.cost import elastic_costs
from espalier.nas.files import read_json
from espalier.nas.progress import silent
from espalier.nas.spaces.macro import Macro
from espalier.recipes.config.loading import recipe_from
from espalier.recipes.engine.runner import run_recipe

ARMS: dict[str, dict[str, Any]] = {
    "spos and search": {"strategy": "spos", "entanglement": "gate"},
    "tanglenas": {"strategy": {"name": "drnas", "alpha_lr": 1e-2}, "entanglement": "superpose"},
    "gated": {"strategy": {"name": "drnas", "alpha_lr": 1e-2}, "entanglement": "gate"},
    "gated, priced": {"strategy": {"name": "drnas", "alpha_lr": 1e-2, "cost_weight": 0.3}, "entanglement": "gate"},
}


def recipe(arm: str, seed: int, epochs: int, options: argparse.Namespace) -> dict[str, Any]:
    """The recipe of one run."""
    parts = ARMS[arm]
    learns = parts["strategy"] != "spos"
    split = {"train": 0.4, "architecture": 0.4} if learns else {"train": 0.8, "architecture": 0.0}
    search = {"objectives": ["accuracy"], "sampler": "regularized_evolution", "population_size": 10}
    return {
        "name": "entangled-search",
        "seed": seed,
        "data": {
            "source": "parquet",
            "path": str(options.data),
            "size": options.size,
            "limit": options.images,
            "split": {**split, "selection": 0.2, "test": 0},
        },
        "space": {"name": "macro", "width": options.width, "entanglement": parts["entanglement"]},
        "supernet": {
            "strategy": parts["strategy"],
            "epochs": epochs,
            "batch_size": 64,
            "lr": 0.05,
            "schedule": "cosine",
            "augment": {"crop_padding": 2, "flip": True},
        },
        "select": {"methods": ["argmax"]} if learns else None,
        "search": None if learns else {**search, "trials": options.trials},
    }


def equal_epochs(options: argparse.Namespace) -> dict[str, int]:
    """Epochs of each arm: mixtures take two passes of the largest network for half of the images."""
    space = Macro((3, options.size, options.size), 10, width=options.width, entanglement="gate")
    costs = elastic_costs(space, "macs")
    whole = {name: range(len(choice.options)) for name, choice in space.choices().items()}
    uniform = {name: torch.full((3,), 1 / 3) for name in whole}
    ratio = costs.most_expensive(whole) / float(costs.expected(uniform))
    return {arm: options.epochs if ARMS[arm]["strategy"] != "spos" else round(options.epochs * ratio) for arm in ARMS}


def chosen(folder: Path) -> str:
    """The notation of what a run chose."""
    if (folder / "stages" / "select.json").is_file():
        return str(read_json(folder / "stages" / "select.json")["outputs"]["chosen"][0]["notation"])
    found = read_json(folder / "stages" / "search.json")["outputs"]
    return next(str(c["notation"]) for c in found["candidates"] if c["id"] == found["front"][0])


def worth(accuracy: float, table: Mapping[str, float]) -> tuple[float, float]:
    """The share of networks that are better, and n such that the best of n random ones is expected to be as good."""
    values = np.sort(np.array(list(table.values())))
    better = float((values > accuracy).mean())
    ranks = np.arange(len(values) + 1) / len(values)
    n = 1
    while n < len(values) and float(values @ np.diff(ranks**n)) < accuracy:
        n += max(1, n // 10)
    return better, float(n)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with train.parquet and test.parquet")
    parser.add_argument("--table", type=Path, required=True, help="NAS-Bench-Macro: columns arch and mean_acc")
    parser.add_argument("--folder", type=Path, default=Path("runs/entangled-search"))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--epochs", type=int, default=20, help="of the arms that learn by gradient")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    judge = Macro()
    rows = read_table(options.table, judge, ["mean_acc"], where="--table")
    table = {judge.format(architecture): values[0] for architecture, values in rows.items()}
    epochs = equal_epochs(options)
    for arm in options.arms:
        accuracies: list[float] = []
        for seed in range(options.seeds):
            folder = options.folder / f"{arm.replace(' ', '-').replace(',', '')}-{seed}"
            settings = recipe_from(recipe(arm, seed, epochs[arm], options))
            run_recipe(settings, folder, track=silent, announce=lambda line: None)
            notation = chosen(folder)
            accuracies.append(table[notation])
            better, n = worth(accuracies[-1], table)
            print(
                f"{arm} seed {seed}: {notation} {accuracies[-1]:.2f} %, top {better:.1%}, best of {n:.0f}", flush=True
            )
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else float("nan")
        print(
            f"{arm:18} {epochs[arm]} epochs: {statistics.mean(accuracies):.2f} +- {spread:.2f} %, n = {options.seeds}"
        )
    values = list(table.values())
    largest = table["2" * 8]
    print(f"all: mean {statistics.mean(values):.2f} %, best {max(values):.2f} %; the largest network {largest:.2f} %")


if __name__ == "__main__":
    main()
