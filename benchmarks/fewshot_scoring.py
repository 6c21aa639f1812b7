"""What it costs to decide on a split by gradient matching.

First the distances alone, on gradients of a NAS-Bench-201 supernet's size: a loop over pairs of options, which lays
two whole gradients out for each, against one product for each parameter. Then a supernet of digits, whose split is
decided after a warm-up: images passed and seconds of scoring, of the race that stops when it is sure and of the
published 100 repeats for every edge (their images from arithmetic). Training is the published 165 epochs: of these
1,000 digits, or of the 25,000 images of CIFAR-10 that the paper trains on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from common import interleave, median_ms, median_ratio, print_machine, print_table
from torch import Tensor

from espalier.nas.data import Batches, SplitFractions, load, split
from espalier.nas.device import place
from espalier.nas.gates import Gates
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Batch, Classification
from espalier.nas.training import TrainSettings
from espalier.supernets.darts import FixedAlpha
from espalier.supernets.fewshot import FewShotSettings
from espalier.supernets.fewshot.similarity import GradientDistances, distances, shared_parameters
from espalier.supernets.fewshot.split import split_by_gradients
from espalier.supernets.spos import SinglePathOneShot
from espalier.supernets.strategy import Strategy
from espalier.supernets.trainer import SupernetTraining

TASK = Classification(10)


def pairwise(rows: Sequence[Mapping[str, Tensor]]) -> np.ndarray:
    """The distances as a loop over all ordered pairs of concatenated gradients."""
    result = np.empty((len(rows), len(rows)))
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            g, h = (torch.cat([part.flatten() for part in row.values()]) for row in (one, other))
            result[i, j] = 1 - float(torch.dot(g, h) / (g.norm() * h.norm() + 1e-6))
    return result


def compare_products(rounds: int) -> None:
    """Print the table of the distances alone."""
    shared = shared_parameters(NasBench201(), "edge_1_0")
    generator = torch.Generator().manual_seed(0)
    rows = [{name: torch.randn(p.shape, generator=generator) for name, p in shared.items()} for _ in range(5)]
    assert np.allclose(distances(rows), pairwise(rows), atol=1e-4)
    contestants = {"loop over pairs": lambda: pairwise(rows), "one product": lambda: distances(rows)}
    times = interleave(contestants, rounds=rounds)
    table = [
        [name, median_ms(seconds), median_ratio(seconds, times["loop over pairs"])] for name, seconds in times.items()
    ]
    size = sum(p.numel() for p in shared.values())
    title = f"Distances of 5 gradients of {size:,} weights, n = {rounds}"
    print_table(title, ["way", "ms, median (min-max)", "ratio of medians"], table)


def supernet(strategy: type[Strategy]) -> SupernetTraining:
    """A small NAS-Bench-201 supernet of digits."""
    images, test = load("digits")
    splits = split(images, test, SplitFractions(train=0.6, architecture=0, selection=0.3, test=0.1), seed=0)
    generator = torch.Generator().manual_seed(0)
    norm = {"mean": splits.mean, "std": splits.std}
    torch.manual_seed(0)
    space = NasBench201((1, 8, 8), 10, channels=4, cells=1)
    place(space, torch.device("cpu"))
    return SupernetTraining(
        space,
        strategy(space),
        TrainSettings(epochs=60),
        Batches(splits.train, 64, **norm, shuffle=True, generator=generator, drop_last=True),
        task=TASK,
        generator=generator,
        seed=0,
    )


def score(strategy: type[Strategy], warmup: int, repeats: int) -> list[str]:
    """A row of the table of the split."""
    training = supernet(strategy)
    started = time.perf_counter()
    for _ in range(warmup):
        training.run_epoch()
    epoch = (time.perf_counter() - started) / warmup

    def batches() -> Iterator[Batch]:
        while True:
            yield from training.batches

    def loss(batch: Batch, gates: Gates) -> Tensor:
        return TASK.loss(training.space(batch[0], gates), batch[1])

    generator = torch.Generator().manual_seed(0)
    measure = GradientDistances(training.space, training.strategy, loss, batches(), generator)
    names = list(training.space.choices())
    started = time.perf_counter()
    found = split_by_gradients(measure, names, 2, repeats=repeats, agreement=0.95, seed=0)
    seconds = time.perf_counter() - started
    images = 64 * len(training.batches)
    total = FewShotSettings().total_epochs
    published = 6 * 5 * 100 * 64
    return [
        training.strategy.name,
        f"{found.choice} {found.groups}",
        f"{found.repeats}" + (f" ({found.agreement:.0%})" if found.agreement is not None else ""),
        f"{found.sample_passes:,}",
        f"{found.sample_passes / published:.2f}",
        f"{found.sample_passes / (images * total):.2%}",
        f"{found.sample_passes / (25_000 * total):.2%}",
        f"{seconds:.1f}",
        f"{seconds / (epoch * total):.2%}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3, help="epochs before the split")
    parser.add_argument("--repeats", type=int, default=40, help="at most")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print_machine(options.threads)
    compare_products(options.rounds)
    header = [
        "strategy",
        "split",
        "repeats (agreement)",
        "images passed",
        "of 100 repeats of all edges",
        "of the images of training",
        "of CIFAR-10's",
        "s",
        "of the time of training",
    ]
    rows = [score(strategy, options.warmup, options.repeats) for strategy in (FixedAlpha, SinglePathOneShot)]
    print_table("First split of a supernet; training is 165 epochs (15 + 2 * 15 + 4 * 30)", header, rows)


if __name__ == "__main__":
    main()
