"""Three searches under three budgets on this machine: what was asked for, what came out, and how little was measured.

NAS-Bench-201 cells for 8x8 digits, one supernet for all. The budgets are quantiles of the latencies of random networks,
so that about as many of the space fit. Every search starts without any measurement. Returned are the networks that are
trained at the end; their latency is that of their own exported files, with the interval whose upper end counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import print_machine, print_table

from espalier.nas.files import read_json
from espalier.nas.run import RunFolder
from espalier.recipes.config.loading import recipe_from
from espalier.recipes.config.schema import Recipe
from espalier.recipes.engine.assemble import Assembly
from espalier.recipes.engine.runner import run_recipe

RANDOM = 16
"""Networks that the budgets are taken from."""


def recipe_under(limit_ms: float | None, trials: int) -> Recipe:
    """The recipe of the searches."""
    document: dict[str, Any] = {
        "name": "budget",
        "data": {"source": "digits", "split": {"train": 0.5, "architecture": 0.1, "selection": 0.2, "test": 0.2}},
        "space": {"name": "nasbench201", "channels": 16, "cells": 2},
        "supernet": {"epochs": 15, "batch_size": 64, "lr": 0.1},
        "search": {"objectives": ["accuracy", "latency_ms"], "trials": trials, "population_size": 12},
        "train": {"front": 3, "epochs": 5, "batch_size": 64, "lr": 0.1, "predictors": ["macs"]},
        "profile": {"threads": 1, "seconds": 1.0, "search_seconds": 0.2},
    }
    return recipe_from(document | ({} if limit_ms is None else {"budget": {"latency_ms": limit_ms}}))


def random_latencies(folder: Path) -> list[float]:
    """Measured medians of random networks of the space, in ms."""
    assembly = Assembly(recipe_under(1.0, 1), RunFolder(folder))
    assert assembly.budget is not None
    latencies, generator = assembly.budget.latencies, torch.Generator().manual_seed(1)
    return [latencies.measure(assembly.space.sample(generator), "quick").latency_ms for _ in range(RANDOM)]


def rows_of(folder: Path, limit_ms: float) -> list[list[str]]:
    """A row for each network that a run has returned; the first says what the search has taken."""
    search = read_json(folder / "stages" / "search.json")["outputs"]
    profile = read_json(folder / "stages" / "profile.json")["outputs"]
    trained = {n["id"]: n for n in read_json(folder / "stages" / "train.json")["outputs"]["networks"]}
    counts, candidates = search["cascade"], len(search["candidates"])
    rows = []
    for id_, measurement in profile.items():
        low, high = measurement["latency"]["ci95"]
        took = [f"{limit_ms:.4f}", str(candidates), str(counts["measurement"]), str(counts["estimate"])]
        took.append(f"{counts['held']} of {counts['checked']}")
        found = f"{measurement['latency']['p50']:.4f} [{low:.4f}, {high:.4f}]"
        kept = "within" if high <= limit_ms else "left out"
        rows.append([*(took if not rows else [""] * len(took)), id_, f"{trained[id_]['accuracy']:.1%}", found, kept])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--quantiles", type=float, nargs="+", default=[0.25, 0.5, 0.75])
    parser.add_argument("--folder", type=Path, default=None, help="of the run; by default a temporary one")
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "run"
        folder.mkdir(parents=True, exist_ok=True)
        budgets = np.quantile(random_latencies(folder), options.quantiles)
        rows = []
        for limit_ms in budgets:
            (folder / "latencies.json").unlink(missing_ok=True)
            run_recipe(recipe_under(float(limit_ms), options.trials), folder)
            rows += rows_of(folder, float(limit_ms))
    print_machine(1)
    header = ["asked (ms)", "candidates", "measured", "by estimate", "estimates that held"]
    header += ["returned", "accuracy", "measured p50 [95 %] (ms)", "budget"]
    print_table("Searches under a budget", header, rows)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
