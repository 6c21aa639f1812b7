"""An architecture step of ProxylessNAS beside a training step of one path and of the mixture of all paths.

Contestants take turns on one batch. Memory is what the graph keeps for the backward pass at its peak: of an
architecture step it should be that of one path, whatever the number of options. Time: with N options an architecture
step runs one path forwards, backwards without gradients of weights, and the N - 1 others forwards. The column `count`
is what that makes in MACs, with F of a forward pass, beside the 3 F of a training step of the path (F forwards, F for
gradients of activations and F for those of weights).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from common import interleave, median_ms, median_ratio, print_machine, print_table
from torch import Tensor, nn

from espalier.nas.cost.macs import macs_table
from espalier.nas.device import accelerator, place
from espalier.nas.gates import Gates, mixture
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.mobilenet import MobileNet
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Classification
from espalier.supernets.proxyless import ProxylessNAS
from espalier.supernets.strategy import Step


class Contest:
    """Steps of one supernet on one batch of noise, along the path of one option everywhere."""

    def __init__(self, space: SearchSpace, option: str, batch: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.space = space
        place(space, device).train()
        x = torch.randn(batch, *space.input_shape).to(device, memory_format=torch.channels_last)
        self.batch = (x, torch.randint(space.num_classes, (batch,)).to(device))
        self.path = {name: choice.options.index(option) for name, choice in space.choices().items()}
        self.optimizer = torch.optim.SGD(space.parameters(), lr=0.0, momentum=0.9)

    def step(self) -> Step:
        return Step(
            supernet=self.space,
            task=Classification(self.space.num_classes),
            optimizer=self.optimizer,
            train=self.batch,
            validation=lambda: self.batch,
            generator=torch.Generator().manual_seed(0),
            epoch=1,
            epochs=2,
            index=0,
            steps=1,
        )

    def train(self, gates: Callable[[], Gates]) -> Callable[[], None]:
        """A step of the weights under these gates."""

        def work() -> None:
            self.optimizer.zero_grad(set_to_none=True)
            self.step().loss(self.batch, gates()).backward()
            self.optimizer.step()
            self._wait()

        return work

    def learn(self, **options: object) -> Callable[[], None]:
        """An architecture step; alpha is so sure that it draws the path."""
        strategy = ProxylessNAS(self.space, every=1, alpha_lr=1e-9, **options)  # type: ignore[arg-type]
        for name, alpha in strategy.alphas.values.items():
            alpha.data[self.path[name]] = 30.0

        def work() -> None:
            strategy.after_step(self.step())
            self._wait()

        return work

    def mixed(self) -> Gates:
        """All options at equal weights, with a gradient."""
        device = self.batch[0].device
        counts = {name: len(choice.options) for name, choice in self.space.choices().items()}
        return {n: mixture(torch.full((c,), 1 / c, device=device, requires_grad=True)) for n, c in counts.items()}

    def counts(self) -> dict[str, float]:
        """MACs of each contestant, in those of a training step of the path."""
        table = macs_table(self.space)
        rows = {name: list(row.values()) for name, row in table.costs.items()}
        path = table.fixed + sum(row[self.path[name]] for name, row in rows.items())
        others = {name: sum(row) - row[self.path[name]] for name, row in rows.items()}
        one_other = sum(total / (len(rows[name]) - 1) for name, total in others.items())
        return {
            "weights, one path": 1.0,
            "alpha, all paths": (2 * path + sum(others.values())) / (3 * path),
            "alpha, two paths": (2 * path + one_other) / (3 * path),
            "weights, mixture": (path + sum(others.values())) / path,
        }

    def _wait(self) -> None:
        if self.batch[0].is_cuda:
            torch.cuda.synchronize()


def peak_bytes(work: Callable[[], None], device: torch.device) -> int:
    """The most that `work` holds at one time: on a GPU above what it found, else of tensors saved for backward."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    counts: dict[int, int] = {}
    live = most = 0

    class Saved:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal live, most
            self.tensor = tensor.detach()
            storage = tensor.untyped_storage()
            self.key, self.bytes = storage.data_ptr(), 0 if isinstance(tensor, nn.Parameter) else storage.nbytes()
            live += 0 if counts.get(self.key) else self.bytes
            counts[self.key] = counts.get(self.key, 0) + 1
            most = max(most, live)

        def __del__(self) -> None:
            nonlocal live
            counts[self.key] -= 1
            live -= 0 if counts[self.key] else self.bytes

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        work()
    return most


def compare(title: str, contest: Contest, *, rounds: int) -> None:
    """Print the table of one supernet."""
    contestants = {
        "weights, one path": contest.train(lambda: contest.path),
        "alpha, all paths": contest.learn(paths="all"),
        "alpha, two paths": contest.learn(paths="two"),
        "weights, mixture": contest.train(contest.mixed),
    }
    times = interleave(contestants, rounds=rounds)
    memory = {name: peak_bytes(work, contest.batch[0].device) for name, work in contestants.items()}
    base, counts = "weights, one path", contest.counts()
    rows = [
        [
            name,
            median_ms(times[name]),
            median_ratio(times[name], times[base]),
            f"{counts[name]:.2f}",
            f"{memory[name] / 1e6:.1f}",
            f"{memory[name] / memory[base]:.2f}",
        ]
        for name in contestants
    ]
    print_table(f"{title}, n = {rounds}", ["step", "ms, median (min-max)", "ratio", "count", "peak MB", "ratio"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = accelerator() if options.device == "auto" else torch.device(options.device)
    print_machine(options.threads)
    mobile = MobileNet((3, 32, 32), 10, width=0.5, reductions=3)
    compare("mobilenet, width 0.5, 3x32x32", Contest(mobile, "k5e6", options.batch, device), rounds=options.rounds)
    cells = NasBench201((3, 32, 32), 10, cells=1)
    compare("nasbench201, one cell", Contest(cells, "nor_conv_3x3", options.batch, device), rounds=options.rounds)


if __name__ == "__main__":
    main()
