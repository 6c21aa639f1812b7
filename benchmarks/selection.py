"""Magnitude against perturbation: what each chooses from the same supernets, and what that is worth.

Each seed trains one supernet with DARTS, lets both methods choose from it, and judges what they chose: on
NAS-Bench-201 by the benchmark's table, elsewhere by training the chosen networks alone. A network drawn at random from
the same space stands beside them. Every run is a recipe in a folder of its own, so that a killed comparison goes on.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from espalier.export.errors import ExportError
from espalier.nas.benchmark_table import read_table
from espalier.nas.files import read_json
from espalier.nas.progress import silent
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.recipes.config.loading import recipe_from
from espalier.recipes.engine.runner import run_recipe

SPACES: dict[str, dict[str, Any]] = {
    "nasbench201": {"name": "nasbench201", "channels": 8, "cells": 1},
    "S2": {"name": "darts", "variant": "S2", "channels": 4, "cells": 3},
    "S4": {"name": "darts", "variant": "S4", "channels": 4, "cells": 3},
}


def recipe(space: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The recipe of one run."""
    common = {"batch_size": 64, "augment": {"crop_padding": 2, "flip": True}}
    train = {**common, "epochs": options.train_epochs, "lr": 0.05, "random": 1, "predictors": ["params"]}
    return {
        "name": f"selection-{space}",
        "seed": seed,
        "data": {
            "source": "parquet",
            "path": str(options.data),
            "size": options.size,
            "limit": options.images,
            "split": {"train": 0.4, "architecture": 0.4, "selection": 0.2, "test": 0},
        },
        "space": SPACES[space],
        "supernet": {
            **common,
            "strategy": {"name": "darts", "alpha_lr": options.alpha_lr},
            "epochs": options.epochs,
            "lr": 0.025,
            "schedule": "cosine",
            "weight_decay": 3e-4,
        },
        "select": {"methods": ["argmax", "perturbation"], "epochs": options.interval},
        "train": None if space == "nasbench201" else train,
        "profile": {"threads": 1, "sessions": 2, "seconds": 0.2},
    }


def accuracies(folder: Path, table: dict[str, float]) -> dict[str, float]:
    """What each method's choice is worth, by the table where there is one."""
    if table:
        chosen = read_json(folder / "stages" / "select.json")["outputs"]["chosen"]
        return {one["method"]: table[one["notation"]] for one in chosen}
    networks = read_json(folder / "stages" / "train.json")["outputs"]["networks"]
    chosen = read_json(folder / "stages" / "select.json")["outputs"]["chosen"]
    by_origin = {network["origin"]: 100 * network["accuracy"] for network in networks}
    # Where two methods choose networks that compute the same, only the first is trained.
    (same, *_) = [by_origin[one["method"]] for one in chosen if one["method"] in by_origin]
    return {**{one["method"]: by_origin.get(one["method"], same) for one in chosen}, "random": by_origin["random"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with train.parquet and test.parquet")
    parser.add_argument("--table", type=Path, required=True, help="a CSV file with the columns arch and c10_test")
    parser.add_argument("--folder", type=Path, default=Path("runs/selection"))
    parser.add_argument("--spaces", nargs="+", default=list(SPACES), choices=list(SPACES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--interval", type=int, default=1)
    parser.add_argument("--train-epochs", type=int, default=15)
    parser.add_argument("--alpha-lr", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for space in options.spaces:
        table: dict[str, float] = {}
        if space == "nasbench201":
            judge = NasBench201()
            rows = read_table(options.table, judge, ["c10_test"], where="--table")
            table = {judge.format(architecture): values[0] for architecture, values in rows.items()}
        found: dict[str, list[float]] = {}
        for seed in range(options.seeds):
            folder = options.folder / f"{space}-{seed}"
            try:
                run_recipe(recipe_from(recipe(space, seed, options)), folder, track=silent, announce=lambda line: None)
            except (
                ExportError
            ) as error:  # of S4: what keeps noise draws anew each time, but it has been trained by then
                print(f"{space} seed {seed}: not exported, {error}", flush=True)
            for method, accuracy in accuracies(folder, table).items():
                found.setdefault(method, []).append(accuracy)
            print(f"{space} seed {seed}: " + ", ".join(f"{m} {a[-1]:.2f}" for m, a in found.items()), flush=True)
        if table:
            found["random"] = list(table.values())
        for method, values in found.items():
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            print(f"{space:12} {method:13} {statistics.mean(values):6.2f} +- {spread:.2f} %, n = {len(values)}")


if __name__ == "__main__":
    main()
