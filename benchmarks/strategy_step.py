"""One training step of a supernet by every strategy that learns, beside the step that learns only the weights.

The baseline trains the same supernet under the same mixture with fixed architecture parameters. A step of first-order
DARTS adds one forward pass and a backward pass to alpha alone, so that twice the baseline is its limit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from common import interleave, median_ms, median_ratio, print_machine, print_table

from espalier.nas.device import accelerator, place
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.darts import Darts
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Batch, Classification
from espalier.nas.training import TrainSettings
from espalier.supernets.darts import DARTS, FixedAlpha
from espalier.supernets.drnas import DrNAS
from espalier.supernets.gdas import GDAS
from espalier.supernets.spos import SinglePathOneShot
from espalier.supernets.strategy import Strategy
from espalier.supernets.trainer import SupernetTraining

STRATEGIES: dict[str, Callable[[SearchSpace], Strategy]] = {
    "fixed_alpha": FixedAlpha,
    "darts, first order": DARTS,
    "darts, second order": lambda space: DARTS(space, order=2),
    "drnas": DrNAS,
    "gdas": GDAS,
    "spos": SinglePathOneShot,
}


class _Endless:
    """One batch, again and again."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return 1

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter([self._batch])


def step_of(make_space: Callable[[], SearchSpace], strategy: str, batch: Batch) -> Callable[[], None]:
    """A function that takes one step and waits for the device."""
    torch.manual_seed(0)
    space = make_space()
    place(space, batch[0].device)
    source = _Endless(batch)
    training = SupernetTraining(
        space.train(),
        STRATEGIES[strategy](space),
        TrainSettings(),
        source,
        validation=source,
        task=Classification(10),
        generator=torch.Generator(),
        seed=0,
    )

    def step() -> None:
        training.step(*batch)
        if batch[0].device.type == "cuda":
            torch.cuda.synchronize()

    return step


def compare(title: str, make_space: Callable[[], SearchSpace], images: int, rounds: int, device: torch.device) -> None:
    """Print the table of one space."""
    generator = torch.Generator().manual_seed(0)
    space = make_space()
    x = torch.randn((images, *space.input_shape), generator=generator).to(device, memory_format=torch.channels_last)
    batch = (x, torch.randint(10, (images,), generator=generator).to(device))
    times = interleave({name: step_of(make_space, name, batch) for name in STRATEGIES}, rounds=rounds, warmup=2)
    rows = [[name, median_ms(times[name]), median_ratio(times[name], times["fixed_alpha"])] for name in STRATEGIES]
    print_table(
        f"{title}, {images} images, {device}: median (min-max) of {rounds} steps, ratio of medians with 95 % interval",
        ["strategy", "ms a step", "ratio to fixed_alpha"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = accelerator()
    print_machine(options.threads)
    sizes = {"images": options.images, "rounds": options.rounds, "device": device}
    compare("NAS-Bench-201, 8 channels, 1 cell, 32x32", lambda: NasBench201(channels=8, cells=1), **sizes)
    compare("DARTS S5, 4 channels, 3 cells, 32x32", lambda: Darts(channels=4, cells=3), **sizes)


if __name__ == "__main__":
    main()
