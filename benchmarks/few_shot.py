"""Few-shot supernets against one supernet at equal training cost, and against divisions drawn at random.

All arms train for the same number of epochs in sum. Each is judged by how its inherited accuracies rank cells of
NAS-Bench-201 (Kendall's tau with the benchmark's accuracies), and by the cell that is best among those that it would
search through. Every run is a recipe in a folder of its own, so that a killed comparison goes on.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from espalier.nas.benchmark_table import read_table
from espalier.nas.files import read_json
from espalier.nas.progress import silent
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.recipes.config.loading import recipe_from
from espalier.recipes.engine.runner import run_recipe

ARMS = {"one supernet": None, "gradient matching": "gradients", "random division": "random"}


def recipe(arm: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """The recipe of one run."""
    first, second = options.epochs // 12, options.epochs // 6
    leaf = (options.epochs - first - 2 * (second - first)) // 4
    few_shot = {"split_epochs": [first, second], "branches": [2, 2], "leaf_epochs": leaf, "restart": "none"}
    split = ARMS[arm]
    return {
        "name": "few-shot",
        "seed": seed,
        "data": {
            "source": "parquet",
            "path": str(options.data),
            "size": options.size,
            "limit": options.images,
            "split": {"train": 0.8, "architecture": 0, "selection": 0.2, "test": 0},
        },
        "space": {"name": "nasbench201", "channels": 8, "cells": 1},
        "supernet": {
            "strategy": options.strategy,
            "epochs": first + 2 * (second - first) + 4 * leaf,
            "few_shot": {**few_shot, "split": split} if split else None,
            "batch_size": 64,
            "lr": 0.05,
            "schedule": "cosine",
            "augment": {"crop_padding": 2, "flip": True},
        },
        "rank": {
            "table": str(options.table),
            "target": "c10_test",
            "samples": options.samples,
            "predictors": ["params", "inherited"],
        },
        "search": {"objectives": ["accuracy"], "sampler": "random", "trials": options.trials},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with train.parquet and test.parquet")
    parser.add_argument("--table", type=Path, required=True, help="a CSV file with the columns arch and c10_test")
    parser.add_argument("--folder", type=Path, default=Path("runs/few-shot"))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--strategy", default="spos")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=120, help="of all supernets of an arm together")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    judge = NasBench201()
    rows = read_table(options.table, judge, ["c10_test"], where="--table")
    table = {judge.format(architecture): values[0] for architecture, values in rows.items()}
    for arm in options.arms:
        taus: list[float] = []
        best: list[float] = []
        for seed in range(options.seeds):
            folder = options.folder / f"{arm.replace(' ', '-')}-{seed}"
            run_recipe(recipe_from(recipe(arm, seed, options)), folder, track=silent, announce=lambda line: None)
            outputs = {name: read_json(folder / "stages" / f"{name}.json")["outputs"] for name in ("rank", "search")}
            taus += [row["kendall"] for row in outputs["rank"]["correlations"] if row["name"] == "inherited"]
            front = outputs["search"]["front"][0]
            best += [table[c["notation"]] for c in outputs["search"]["candidates"] if c["id"] == front]
            print(f"{arm} seed {seed}: tau {taus[-1]:.3f}, best {best[-1]:.2f} %", flush=True)
        if options.seeds > 1:
            tau = f"{statistics.mean(taus):.3f} +- {statistics.stdev(taus):.3f}"
            accuracy = f"{statistics.mean(best):.2f} +- {statistics.stdev(best):.2f}"
            print(f"{arm:18} tau {tau}, best of {options.trials} {accuracy} %, n = {options.seeds}")


if __name__ == "__main__":
    main()
