"""One-shot pruning of a small network on handwritten digits: M-FAC, its options, and what it is better than.

A multilayer perceptron 64-128-64-10 is trained, pruned to each sparsity from its dense weights, and tested without any
fine-tuning, so that the table shows the pruning alone. Accuracy is on 540 images that neither training nor pruning has
seen, the mean over seeds with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import print_machine, print_table
from torch import Tensor, nn

from espalier.nas.task import Batch, Classification
from espalier.pruning.magnitude import OneShotMagnitude
from espalier.pruning.mfac.obs import MFACPruner
from espalier.pruning.patterns import Globally
from espalier.pruning.pruner import Pruner
from espalier.pruning.weights import prunable_weights

TASK = Classification(10)
TEST = 540
Make = Callable[[nn.Module, Globally, list[Batch]], Pruner]


def mfac(**options: Any) -> Make:
    """M-FAC over 256 mini-batches of 16 images with eight computations of F, unless the options say otherwise."""
    options = {"rows": 256, "batch_size": 16, "damp": 1e-5, "recomputations": 8} | options
    return lambda model, pattern, batches: MFACPruner(
        prunable_weights(model), pattern, iterations=0, model=model, task=TASK, batches=batches, **options
    )


METHODS: Mapping[str, Make] = {
    "magnitude": lambda model, pattern, _: OneShotMagnitude(prunable_weights(model), pattern, iterations=0),
    "no update (OBD)": mfac(update="none"),
    "singles, 1 computation": mfac(update="singles", recomputations=1),
    "singles": mfac(update="singles"),
    "joint, 1 computation": mfac(recomputations=1),
    "joint, 4 computations": mfac(recomputations=4),
    "joint": mfac(),
    "joint, 16 computations": mfac(recomputations=16),
    "joint, lambda 1e-2": mfac(damp=1e-2),
    "joint, m = 64": mfac(rows=64),
    "joint, b = 1": mfac(batch_size=1),
    "singles, B = 128": mfac(update="singles", block=128),
    "singles, B = 128, 4 computations": mfac(update="singles", block=128, recomputations=4),
    "joint, B = 128, 4 computations": mfac(block=128, recomputations=4),
    "joint, B = 128": mfac(block=128),
    "joint, B = 128, 16 computations": mfac(block=128, recomputations=16),
}


def images() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training and test images `(n, 64)` in 0..1 with their classes, in a fixed random order."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = torch.tensor(digits.data[order], dtype=torch.float32) / 16, torch.tensor(digits.target[order])
    return x[:-TEST], y[:-TEST], x[-TEST:], y[-TEST:]


def trained(x: Tensor, y: Tensor, *, epochs: int = 30) -> nn.Module:
    """The dense network, by Adam on mini-batches of 64, from torch's random state."""
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for at in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(x[at]), y[at]).backward()
            optimizer.step()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.7, 0.8, 0.9, 0.95])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print_machine(options.threads)
    x, y, test_x, test_y = images()
    found: dict[tuple[str, float], list[float]] = {}
    seconds: dict[str, float] = dict.fromkeys(options.methods, 0.0)
    dense = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        model = trained(x, y)
        order = torch.randperm(len(x))
        batches = list(zip(x[order].split(16), y[order].split(16), strict=True))
        dense.append(TASK.evaluate(model, [(test_x, test_y)]))
        weights = sum(weight.numel() for weight in prunable_weights(model).values())
        for name in options.methods:
            for sparsity in options.sparsities:
                pruned = copy.deepcopy(model)
                started = time.perf_counter()
                METHODS[name](pruned, Globally(round(sparsity * weights)), batches).finalize()
                seconds[name] += time.perf_counter() - started
                found.setdefault((name, sparsity), []).append(TASK.evaluate(pruned, [(test_x, test_y)]))
    rows = [
        [name, *(_spread(found[name, sparsity]) for sparsity in options.sparsities), f"{each:.2f}"]
        for name in options.methods
        if (each := seconds[name] / options.seeds / len(options.sparsities)) >= 0
    ]
    title = f"{weights:,} weights, dense {_spread(dense)}, {options.seeds} seeds; m = 256, b = 16, lambda = 1e-5, "
    title += "8 computations of F and all weights together unless said otherwise"
    print_table(title, ["method", *map(str, options.sparsities), "seconds"], rows)


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


if __name__ == "__main__":
    main()
