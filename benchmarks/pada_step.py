"""A training step of PA&DA beside a step of uniform sampling along the same paths, over whole epochs.

What PA&DA adds are a softmax over the logits, the norms of the gradients of the path's weights and, once in an epoch,
the arithmetic on both. Here its share `tau_paths` is 0, so that all contestants draw the same paths: by importance they
would draw dearer ones, which is another question (`path_sampling.py`). FairNAS runs five paths a step.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from common import interleave, median_ms, median_ratio, print_machine, print_table

from espalier.nas.data import Augment, Batches, Images
from espalier.nas.device import accelerator, place
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.darts import Darts
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Classification
from espalier.nas.training import TrainSettings
from espalier.supernets.fairnas import FairNAS
from espalier.supernets.pada import PADA
from espalier.supernets.spos import SinglePathOneShot
from espalier.supernets.strategy import Strategy
from espalier.supernets.trainer import SupernetTraining

STRATEGIES: dict[str, Callable[[SearchSpace], Strategy]] = {
    "spos": SinglePathOneShot,
    "pada": lambda space: PADA(space, tau_paths=0.0),
    "pada, reference, freeze": lambda space: PADA(space, mode="reference", tau_paths=0.0, unsampled="freeze"),
    "pada, reference": lambda space: PADA(space, mode="reference", tau_paths=0.0),
    "fairnas": FairNAS,
}


def epoch_of(make_space: Callable[[], SearchSpace], name: str, options: argparse.Namespace) -> Callable[[], None]:
    """A function that trains for an epoch and waits for the device."""
    device = accelerator()
    torch.manual_seed(0)
    space = make_space()
    place(space, device)
    count = options.images * options.steps
    pixels = torch.randint(256, (count, *space.input_shape), generator=torch.Generator().manual_seed(0))
    images = Images(pixels.to(torch.uint8), torch.arange(count) % 10, tuple("0123456789"), "noise")
    generator = torch.Generator().manual_seed(0)
    norm: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.3,) * 3, "device": device}
    augment = Augment(crop_padding=4, flip=True)
    training = SupernetTraining(
        space,
        STRATEGIES[name](space),
        TrainSettings(epochs=options.rounds + options.warmup, lr=0.01),
        Batches(images, options.images, **norm, shuffle=True, augment=augment, generator=generator, drop_last=True),
        task=Classification(10),
        generator=generator,
        seed=0,
    )
    return lambda: training.run_epoch() and None  # which reads the loss, and so waits


def compare(title: str, make_space: Callable[[], SearchSpace], options: argparse.Namespace) -> None:
    """Print the table of one space."""
    contestants = {name: epoch_of(make_space, name, options) for name in STRATEGIES}
    epochs = interleave(contestants, rounds=options.rounds, warmup=options.warmup)
    times = {name: [seconds / options.steps for seconds in epochs[name]] for name in STRATEGIES}
    rows = [[name, median_ms(times[name]), median_ratio(times[name], times["spos"])] for name in STRATEGIES]
    print_table(
        f"{title}, {options.images} images, {accelerator()}: median (min-max) of {options.rounds} epochs of "
        f"{options.steps} steps, ratio of medians with 95 % interval",
        ["strategy", "ms a step", "ratio to spos"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument(
        "--warmup", type=int, default=3, help="epochs first; the weights of losses differ from the second"
    )
    parser.add_argument("--steps", type=int, default=10, help="in an epoch")
    parser.add_argument("--images", type=int, default=64, help="in a step")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print_machine(options.threads)
    compare("NAS-Bench-201, 8 channels, 1 cell, 32x32", lambda: NasBench201(channels=8, cells=1), options)
    compare("DARTS S5, 4 channels, 3 cells, 32x32", lambda: Darts(channels=4, cells=3), options)


if __name__ == "__main__":
    main()
