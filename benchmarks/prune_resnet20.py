"""ResNet-20 on CIFAR-10 made sparse by several methods with as many training steps each; accuracy on the test set.

    python benchmarks/prune_resnet20.py DATA RESULTS.jsonl --methods magnitude,mfac --sparsities 0.95 --seeds 0

DATA holds `cifar10/` (parquet) and `weights/resnet20_cifar10jpeg.npz`. A cell that RESULTS has already is not run
again; at the end the table of all cells in it is printed. One-shot methods (magnitude, mfac) prune first and fine-tune
for all steps; the others prune during the first two thirds at a constant rate, and fine-tune for the rest.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from common import print_table
from resnet20 import ResNet20
from torch import nn
from torch.optim.swa_utils import update_bn

from espalier.nas.checkpoint import load_weights
from espalier.nas.data import Augment, Batches, Images, load
from espalier.nas.device import accelerator, place
from espalier.nas.task import Classification
from espalier.nas.training import TrainSettings
from espalier.pruning.allocation import ALLOCATIONS
from espalier.pruning.issp import HardThreshold, SoftShrink
from espalier.pruning.magnitude import GradualMagnitude, OneShotMagnitude
from espalier.pruning.masks import zeros_at, zeros_in
from espalier.pruning.patterns import Globally, Layerwise, Pattern
from espalier.pruning.pruner import Pruner
from espalier.pruning.training import SparseTraining
from espalier.pruning.weights import Weights, prunable_weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TASK = Classification(10)
ONE_SHOT = ("magnitude", "mfac")
GLOBAL = ("magnitude", "gradual", "mfac")
"""Methods that rank all weights together; the others get LAMP's zeros in each layer, as uniform ones do worse."""


def batches(images: Images, size: int, generator: torch.Generator | None = None, *, augment: bool = False) -> Batches:
    changes = Augment(crop_padding=4, flip=True) if augment else None
    return Batches(
        images,
        size,
        mean=MEAN,
        std=STD,
        device=accelerator(),
        shuffle=generator is not None,
        augment=changes,
        generator=generator,
        drop_last=generator is not None,
    )


class FirstBatches:
    """A short epoch: the first `count` batches of each longer one."""

    def __init__(self, all_batches: Batches, count: int) -> None:
        self.all, self.count = all_batches, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Any:
        return (batch for batch, _ in zip(self.all, range(self.count), strict=False))


def pattern_of(method: str, weights: Weights, sparsity: float) -> Pattern:
    if method in GLOBAL:
        return Globally(zeros_at(sparsity, sum(w.numel() for w in weights.values())))
    return Layerwise(ALLOCATIONS["lamp"](weights, sparsity))


def pruner_of(method: str, model: nn.Module, sparsity: float, *, steps: int, images: Images, seed: int) -> Pruner:
    weights = prunable_weights(model)
    pattern = pattern_of(method, weights, sparsity)
    if method == "mfac":
        from espalier.pruning.mfac.obs import MFACPruner

        rows = batches(images, 16, torch.Generator().manual_seed(seed), augment=True)
        return MFACPruner(
            weights, pattern, iterations=0, model=model, task=TASK, batches=rows, recomputations=4, rows=64
        )
    classes = {
        "magnitude": OneShotMagnitude,
        "gradual": GradualMagnitude,
        "issp": SoftShrink,
        "iht": HardThreshold,
    }
    return classes[method](weights, pattern, iterations=steps)


def cell(
    method: str, sparsity: float, seed: int, *, data: Path, images: tuple[Images, Images], steps: int, lr: float
) -> dict[str, Any]:
    torch.manual_seed(seed)
    train, test = images
    model = ResNet20()
    load_weights(data / "weights" / "resnet20_cifar10jpeg.npz", model)
    model = place(model, accelerator())
    phases = (
        [(0, "constant"), (steps, "cosine")]
        if method in ONE_SHOT
        else [(2 * steps // 3, "constant"), (steps // 3, "cosine")]
    )
    pruner = pruner_of(method, model, sparsity, steps=phases[0][0], images=train, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    before: float | None = None
    for count, schedule in phases:
        if count:
            settings = TrainSettings(
                epochs=1, batch_size=128, lr=lr, schedule=schedule, clip_grad_norm=None, weight_decay=1e-4
            )
            source = FirstBatches(batches(train, 128, generator, augment=True), count)
            training = SparseTraining(model, settings, source, task=TASK, generator=generator, pruner=pruner)
            losses.append(training.run_epoch()["loss"])
        if schedule == "constant":
            pruner.finalize()
            before = TASK.evaluate(model, batches(test.subset(torch.arange(2000)), 250))
    update_bn(batches(train.subset(torch.arange(2000)), 100), model)
    zeros = zeros_in(pruner.finalize())
    return {
        "method": method,
        "sparsity": sparsity,
        "seed": seed,
        "steps": steps,
        "zeros": zeros,
        "losses": losses,
        "before_fine_tuning": before,
        "accuracy": TASK.evaluate(model, batches(test, 250)),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> None:
    sparsities = sorted({row["sparsity"] for row in rows})
    printed = []
    for method in dict.fromkeys(row["method"] for row in rows):
        line = [method]
        for sparsity in sparsities:
            found = [r for r in rows if (r["method"], r["sparsity"]) == (method, sparsity)]
            values = [100 * r["accuracy"] for r in found]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            before = [100 * r["before_fine_tuning"] for r in found]
            line.append(
                f"{statistics.mean(values):.2f}{spread} ({statistics.mean(before):.1f}), n = {len(values)}"
                if values
                else ""
            )
        printed.append(line)
    print_table(
        "Test accuracy in % after fine-tuning (before it, on 2,000 of the images)",
        ["method", *(f"{s:g}" for s in sparsities)],
        printed,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--methods", default="magnitude,gradual,issp,mfac")
    parser.add_argument("--sparsities", default="0.95,0.9,0.98,0.8")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, default=200, help="of 128 images, in all")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pool, test = load("parquet", path=arguments.data / "cifar10")
    assert test is not None
    rows = (
        [json.loads(line) for line in arguments.results.read_text().splitlines()] if arguments.results.exists() else []
    )
    for seed in map(int, arguments.seeds.split(",")):
        for sparsity in map(float, arguments.sparsities.split(",")):
            for method in arguments.methods.split(","):
                if any(
                    (r["method"], r["sparsity"], r["seed"], r["steps"]) == (method, sparsity, seed, arguments.steps)
                    for r in rows
                ):
                    continue
                row = cell(
                    method,
                    sparsity,
                    seed,
                    data=arguments.data,
                    images=(pool, test),
                    steps=arguments.steps,
                    lr=arguments.lr,
                )
                rows.append(row)
                with arguments.results.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    table([row for row in rows if row["steps"] == arguments.steps])


if __name__ == "__main__":
    main()
