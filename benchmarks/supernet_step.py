"""One training step of a supernet along a path, beside the same step of the stand-alone network of that path.

Contestants take turns on one batch: the stand-alone network (`space.build`, whose cells have affine batch norms), the
supernet as it is trained (no affine parameters in its cells), and the supernet with them. In the last row the strategy
draws a path at each step, and the stand-alone network is the one of the path just drawn.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from common import interleave, mean_ratio, median_ms, median_ratio, print_machine, print_table
from torch import Tensor, nn

from espalier.nas.architecture import Architecture
from espalier.nas.device import accelerator, autocast, place
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Classification
from espalier.nas.training import Training, TrainSettings
from espalier.supernets.spos import SinglePathOneShot

Shape = tuple[int, int, int]
Step = Callable[[], None]
Forward = Callable[[Tensor], Tensor]


class TrainingAlong(Training):
    """A training whose forward pass is another function's than the model's, such as that of one path."""

    forward: Forward

    def backward(self, x: Tensor, y: Tensor) -> Tensor:
        with autocast(x.device):
            loss = self.task.loss(self.forward(x), y)
        loss.backward()
        return loss.detach()


class Steps:
    """Training steps on one batch of noise."""

    def __init__(self, batch: int, shape: Shape, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn((batch, *shape), generator=generator)
        self.x = x.to(device, memory_format=torch.channels_last if device.type == "cuda" else torch.contiguous_format)
        self.y = torch.randint(10, (batch,), generator=generator).to(device)
        self.device = device

    def of(self, model: nn.Module, forward: Forward | None = None) -> Step:
        """A function that trains `model` one step and waits for the device."""
        place(model, self.device).train()
        batches = [(self.x, self.y)]
        generator = torch.Generator()
        training = TrainingAlong(model, TrainSettings(), batches, task=Classification(10), generator=generator)
        training.forward = forward or model

        def step() -> None:
            training.step(self.x, self.y)
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        return step


class Supernet:
    """A space whose steps go along `path`, and the drawing of paths."""

    def __init__(self, steps: Steps, shape: Shape, *, channels: int, cells: int, affine: bool) -> None:
        torch.manual_seed(0)
        self.space = NasBench201(shape, channels=channels, cells=cells, affine=affine)
        self.strategy = SinglePathOneShot(self.space)
        self.generator = torch.Generator().manual_seed(0)
        self.path: dict[str, int] = {}
        self.step = steps.of(self.space, self._forward)

    def step_along(self, architecture: Architecture) -> Step:
        """A step along the path of `architecture`."""

        def step() -> None:
            self.path = self.space.gates(architecture)
            self.step()

        return step

    def drawn_step(self) -> None:
        """A step along a path that the strategy draws."""
        self.path = self.strategy.weight_gates(self.generator)
        self.step()

    def draws(self, count: int) -> list[Architecture]:
        """The architectures that the next `count` drawn steps will go along."""
        generator = torch.Generator()
        generator.set_state(self.generator.get_state())
        choices = self.space.choices()
        gates = [self.strategy.weight_gates(generator) for _ in range(count)]
        return [Architecture({name: choices[name].options[gate] for name, gate in g.items()}) for g in gates]

    def _forward(self, x: Tensor) -> Tensor:
        return self.space(x, self.path)


def compare(shape: Shape, *, channels: int, cells: int, batch: int, rounds: int, device: torch.device) -> None:
    """Print the table of one size."""
    steps = Steps(batch, shape, device)
    plain = Supernet(steps, shape, channels=channels, cells=cells, affine=False)
    affine = Supernet(steps, shape, channels=channels, cells=cells, affine=True)
    names = list(plain.space.choices())
    paths = {
        f"all {op}": Architecture(dict.fromkeys(names, op)) for op in ("nor_conv_3x3", "nor_conv_1x1", "skip_connect")
    }
    generator = torch.Generator().manual_seed(1)
    paths |= {f"random {i}": plain.space.sample(generator) for i in range(1, 6)}
    rows = []
    for label, architecture in paths.items():
        contestants = {
            "stand-alone": steps.of(plain.space.build(architecture)),
            "supernet": plain.step_along(architecture),
            "affine": affine.step_along(architecture),
        }
        times = interleave(contestants, rounds=rounds, warmup=3)
        ratios = [median_ratio(times[name], times["stand-alone"]) for name in ("supernet", "affine")]
        rows.append([label, *(median_ms(times[name]) for name in contestants), *ratios])
    times = drawn(steps, plain, affine, rounds)
    ratios = [mean_ratio(times[name], times["stand-alone"]) for name in ("supernet", "affine")]
    rows.append(["drawn", *(median_ms(seconds) for seconds in times.values()), *ratios])
    header = ["path", "stand-alone", "supernet", "supernet, affine", "ratio", "ratio, affine"]
    size = f"{channels} channels, {cells} cells a stage, {batch} images of {'x'.join(map(str, shape))}, {device}"
    title = (
        f"{size}: ms a step, median (min-max), n = {rounds};\nratios of medians (drawn: of means) with 95 % intervals"
    )
    print_table(title, header, rows)


def drawn(steps: Steps, plain: Supernet, affine: Supernet, rounds: int) -> dict[str, list[float]]:
    """Steps along drawn paths, all networks warmed up."""
    warmup = 3
    architectures = plain.draws(warmup + rounds)
    alone = [steps.of(plain.space.build(architecture)) for architecture in architectures]
    for step in alone:
        step()
    turns = iter(alone)

    def alone_step() -> None:
        next(turns)()

    contestants = {"stand-alone": alone_step, "supernet": plain.drawn_step, "affine": affine.drawn_step}
    return interleave(contestants, rounds=rounds, warmup=warmup)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = accelerator() if options.device == "auto" else torch.device(options.device)
    print_machine(options.threads)
    common = {"batch": options.batch, "rounds": options.steps}
    compare((1, 8, 8), channels=8, cells=1, device=device, **common)
    compare((3, 32, 32), channels=options.channels, cells=options.cells, device=device, **common)


if __name__ == "__main__":
    main()
