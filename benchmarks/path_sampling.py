"""Which paths and images to train a supernet on: SPOS, FairNAS, PA, DA and PA&DA on NAS-Bench-201.

All arms see the same number of images along a path, forward and backward: FairNAS, which runs five paths on a batch,
takes a fifth of the epochs. Each supernet is judged by how the inherited accuracies of cells drawn from the benchmark's
table rank them (Kendall's tau, over all and among the 20 % that are truly best), and by the true accuracy of the cell
they put first. Batch norms use the statistics of the batch, as in the published comparison. Every run leaves a record
in the folder, so that a killed comparison goes on.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from espalier.nas.benchmark_table import read_table
from espalier.nas.data import Augment, Batches, Images, Limit, SplitFractions, load, split
from espalier.nas.device import accelerator, place
from espalier.nas.files import read_json, write_json
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Classification
from espalier.nas.training import TrainSettings
from espalier.predictors.ranking import rank_correlation
from espalier.supernets.evaluation import SupernetEvaluator
from espalier.supernets.fairnas import FairNAS
from espalier.supernets.pada import PADA
from espalier.supernets.spos import SinglePathOneShot
from espalier.supernets.strategy import Strategy
from espalier.supernets.trainer import SupernetTraining, train_supernet

ARMS: dict[str, Callable[[SearchSpace], Strategy]] = {
    "spos": SinglePathOneShot,
    "fairnas": FairNAS,
    "pa reference": lambda space: PADA(space, mode="reference", data=False),
    "da reference": lambda space: PADA(space, mode="reference", paths=False),
    "pada reference": lambda space: PADA(space, mode="reference"),
    "pa corrected": lambda space: PADA(space, data=False),
    "da corrected": lambda space: PADA(space, paths=False),
    "pada corrected": PADA,
}
PATHS_A_STEP = {"fairnas": 5}
Record = dict[str, Any]


def run(arm: str, seed: int, options: argparse.Namespace, truth: dict[str, float]) -> Record:
    """Train one supernet and judge it."""
    device, task = accelerator(), Classification(10)
    pool, test = load("parquet", path=options.data, size=options.size, limit=Limit(options.images, seed))
    parts = split(pool, test, SplitFractions(train=0.8, architecture=0, selection=0.2, test=0), seed=seed)

    def batches(images: Images, size: int, **how: Any) -> Batches:
        return Batches(images, size, mean=parts.mean, std=parts.std, device=device, **how)

    torch.manual_seed(seed)
    space = NasBench201((3, options.size, options.size), 10, channels=options.channels, cells=options.cells)
    place(space, device)
    strategy = ARMS[arm](space)
    generator = torch.Generator().manual_seed(seed)
    augment = Augment(crop_padding=2, flip=True)
    epochs = options.epochs // PATHS_A_STEP.get(arm, 1)
    training = SupernetTraining(
        space,
        strategy,
        TrainSettings(epochs=epochs, lr=options.lr, weight_decay=2.5e-4, schedule="cosine"),
        batches(parts.train, options.batch, shuffle=True, augment=augment, generator=generator, drop_last=True),
        task=task,
        generator=generator,
        seed=seed,
    )
    started = time.process_time()
    rows = train_supernet(training)
    seconds = time.process_time() - started
    every = list(truth)
    drawn = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[: options.samples]
    cells = [every[i] for i in drawn.tolist()]
    judge_cells = SupernetEvaluator(space, batches(parts.selection, 250), seed=seed)
    judged = judge_cells([space.gates(space.parse(cell)) for cell in cells])
    inherited = {cell: evaluation.accuracy for cell, evaluation in zip(cells, judged, strict=True)}
    return {"arm": arm, "seed": seed, "cpu_seconds": seconds, "last_epoch": rows[-1], "inherited": inherited}


def judge(record: Record, truth: dict[str, float]) -> dict[str, float]:
    """The three figures of merit of one run."""
    guessed = record["inherited"]
    true = {cell: truth[cell] for cell in guessed}
    best = sorted(true, key=true.__getitem__, reverse=True)[: len(true) // 5]

    def tau(cells: list[str]) -> float:
        pairs = [guessed[cell] for cell in cells], [true[cell] for cell in cells]
        return rank_correlation(*pairs, resamples=1, seed=0).kendall

    first = max(guessed.values())
    chosen = [true[cell] for cell, value in guessed.items() if value == first]  # ties are drawn from
    return {
        "tau": tau(list(true)),
        "tau_best": tau(best),
        "chosen": statistics.mean(chosen),
        "inherited": statistics.mean(guessed.values()),
        "cpu_seconds": record["cpu_seconds"],
    }


def spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation over seeds."""
    deviation = f" +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with train.parquet and test.parquet")
    parser.add_argument("--table", type=Path, required=True, help="a CSV file with the columns arch and c10_test")
    parser.add_argument("--folder", type=Path, default=Path("runs/path-sampling"))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5_000, help="a fifth of them judge")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64, help="images in a step")
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    space = NasBench201()
    table = read_table(options.table, space, ["c10_test"], where="--table")
    truth = {space.format(architecture): values[0] for architecture, values in table.items()}
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in options.arms}
    for seed in range(options.seeds):
        for arm in options.arms:
            path = options.folder / f"{arm.replace(' ', '-')}-{seed}.json"
            if not path.exists():
                write_json(path, run(arm, seed, options, truth))
            found[arm].append(judge(read_json(path), truth))
            figures = ", ".join(f"{key} {value:.3f}" for key, value in found[arm][-1].items())
            print(f"{arm} seed {seed}: {figures}", flush=True)
    print(f"\n{options.samples} cells a seed, {options.seeds} seeds, mean +- standard deviation\n")
    print("| arm | tau | tau, best 20 % | true accuracy of the first (%) | mean inherited (%) | CPU seconds |")
    print("|---|---|---|---|---|---|")
    for arm, runs in found.items():
        columns = {key: [one[key] for one in runs] for key in runs[0]}
        columns["inherited"] = [100 * value for value in columns["inherited"]]
        digits = {"tau": 3, "tau_best": 3, "chosen": 2, "inherited": 1, "cpu_seconds": 0}
        cells = " | ".join(spread(columns[key], count) for key, count in digits.items())
        print(f"| {arm} | {cells} |")


if __name__ == "__main__":
    main()
