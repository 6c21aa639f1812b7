"""A training step of ISS-P beside a dense one, and what the choice of the lower part costs alone.

The lower part is chosen anew at every step in all of the network's weights. The published code sorts for that; here it
is a partition. The row `sorted` is the same step with a sort in place of the partition.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from common import interleave, median_ms, median_ratio, print_machine, print_table
from resnet20 import ResNet20
from torch import Tensor, nn

from espalier.nas.device import accelerator, autocast, place
from espalier.nas.super_resolution.edsr import EDSR
from espalier.pruning.issp import SoftShrink
from espalier.pruning.masks import zeros_at
from espalier.pruning.patterns import Layerwise, Pattern, Scores
from espalier.pruning.weights import prunable_weights

Loss = Callable[[Tensor, Tensor], Tensor]


class Sorted:
    """A layerwise pattern that sorts."""

    def __init__(self, pattern: Layerwise) -> None:
        self._zeros = pattern.zeros

    def select(self, scores: Scores, share: float = 1.0) -> dict[str, Tensor]:
        masks = {}
        for name, score in scores.items():
            kept = torch.ones(score.numel(), dtype=torch.bool, device=score.device)
            kept[score.reshape(-1).argsort(stable=True)[: round(share * self._zeros[name])]] = False
            masks[name] = kept.view(score.shape)
        return masks


class Contestant:
    """A network in training, with a pruner or without."""

    def __init__(self, make: Callable[[], nn.Module], batch: tuple[Tensor, Tensor], loss: Loss, method: str) -> None:
        torch.manual_seed(0)
        self._model = place(make(), batch[0].device).train()
        self._batch, self._loss = batch, loss
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=1e-4)
        weights = prunable_weights(self._model)
        layerwise = Layerwise({name: zeros_at(0.9, weight.numel()) for name, weight in weights.items()})
        pattern: Pattern = Sorted(layerwise) if method == "sorted" else layerwise
        self._pruner = None if method == "dense" else SoftShrink(weights, pattern, iterations=10**9)
        self.alone: list[float] = []

    def step(self) -> None:
        """One step of the weights; times what the pruner does in it, once all before it is done."""
        x, y = self._batch
        self._optimizer.zero_grad(set_to_none=True)
        with autocast(x.device):
            loss = self._loss(self._model(x), y)
        loss.backward()
        self._optimizer.step()
        _wait(x.device)
        started = time.perf_counter()
        if self._pruner is not None:
            self._pruner.step()
        _wait(x.device)
        self.alone.append(time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def compare(title: str, make: Callable[[], nn.Module], batch: tuple[Tensor, Tensor], loss: Loss, rounds: int) -> None:
    """Print the table of one network."""
    contestants = {name: Contestant(make, batch, loss, name) for name in ("dense", "iss-p", "sorted")}
    times = interleave({name: one.step for name, one in contestants.items()}, rounds=rounds, warmup=2)
    dense = times["dense"]
    rows = []
    for name, one in contestants.items():
        alone = one.alone[-rounds:]
        over = [step + part for step, part in zip(dense, alone, strict=True)]
        rows.append(
            [
                name,
                median_ms(times[name]),
                median_ratio(times[name], dense),
                median_ms(alone),
                median_ratio(over, dense),
            ]
        )
    print_table(
        f"{title}, {batch[0].device}: median (min-max) of {rounds} steps, ratio of medians with 95 % interval",
        ["step", "ms a step", "ratio to dense", "ms of the pruner", "dense step and pruner over dense step"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = accelerator()
    print_machine(options.threads)
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, memory_format=torch.channels_last)

    images = noise(128, 3, 32, 32), torch.randint(10, (128,), generator=generator).to(device)
    compare("ResNet-20, 128 images of 32x32", ResNet20, images, F.cross_entropy, options.rounds)
    patches = noise(16, 3, 48, 48), noise(16, 3, 96, 96)
    compare(
        "EDSR, 16 blocks of 64 channels, 16 patches of 48x48",
        lambda: EDSR(2),
        patches,
        F.l1_loss,
        max(5, options.rounds // 3),
    )


if __name__ == "__main__":
    main()
