"""Inherited accuracy by the supernet itself, with batch-norm statistics of its own, beside networks cut out of it.

Both judge the same architectures on the same images, take turns, and must give the same values. With few images the
tracing and copying of a network is most of its time; with many the forward passes are, on a CPU slowed down by memory
that is given back to the system and asked for again (`nas.memory`). `--keep` keeps it, as the command `nas` does.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable

import torch
from common import interleave, median_ms, median_ratio, print_machine, print_table
from torch.optim.swa_utils import update_bn

from espalier.nas.architecture import Architecture
from espalier.nas.data import Batches, Images
from espalier.nas.device import accelerator, place
from espalier.nas.memory import keep_freed_memory
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Classification
from espalier.predictors.inherited import InheritedAccuracy

TASK = Classification(10)


def noise(count: int, size: int, seed: int) -> Batches:
    """Images of noise in batches of 250 or fewer."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (count,), generator=generator)
    images = Images(pixels, labels, [str(i) for i in range(10)], "noise")
    return Batches(images, min(250, count), mean=[0.5] * 3, std=[0.3] * 3, device=accelerator())


def cut(space: SearchSpace, calibration: Batches, selection: Batches) -> Callable[[Architecture], float]:
    """The reference: build the network, average its statistics anew, evaluate it."""

    def accuracy(architecture: Architecture) -> float:
        network = space.build(architecture, weights="inherited")
        update_bn(calibration, network)
        return TASK.evaluate(network, selection)

    return accuracy


def compare(
    name: str, space: SearchSpace, calibration: Batches, selection: Batches, *, rounds: int, chosen: int = 4
) -> list[list[str]]:
    """The rows of one supernet: time of both ways, their ratio, and the pages that each asks the system for."""
    place(space, accelerator())
    predictor = InheritedAccuracy(
        [(Region.whole(space), space)], calibration=calibration, selection=selection, task=TASK, images=1
    )
    reference = cut(space, calibration, selection)
    generator = torch.Generator().manual_seed(0)
    architectures = [space.sample(generator) for _ in range(chosen)]
    contestants = {
        "cut out": lambda: [reference(architecture) for architecture in architectures],
        "itself": lambda: [predictor(architecture).value for architecture in architectures],
    }
    if contestants["cut out"]() != contestants["itself"]():
        raise SystemExit(f"{name}: the two ways do not agree")
    times = interleave(contestants, rounds=rounds)
    return [
        [
            name,
            way,
            median_ms([seconds / chosen for seconds in times[way]]),
            median_ratio(times[way], times["cut out"]),
            f"{pages(work) / chosen:,.0f}",
        ]
        for way, work in contestants.items()
    ]


def pages(work: Callable[[], object]) -> int:
    """The pages of memory that the system has to clear for it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep freed memory, as the command nas does")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print_machine(options.threads)
    if options.keep and not keep_freed_memory():
        raise SystemExit("freed memory cannot be kept here")
    many, few, held_out = noise(1000, 16, seed=0), noise(100, 16, seed=0), noise(500, 16, seed=1)
    rows = [
        row
        for name, cells, calibration, selection in (
            ("1 cell, 1,000 + 500 images", 1, many, held_out),
            ("1 cell, 100 + 100 images", 1, few, few),
            ("5 cells, 100 + 100 images", 5, few, few),
        )
        for row in compare(
            name, NasBench201((3, 16, 16), channels=8, cells=cells), calibration, selection, rounds=options.rounds
        )
    ]
    title = (
        f"NAS-Bench-201, 8 channels, 3x16x16, memory {'kept' if options.keep else 'given back'}, n = {options.rounds}"
    )
    print_table(title, ["supernet", "way", "ms an architecture, median (min-max)", "ratio", "pages"], rows)


if __name__ == "__main__":
    main()
