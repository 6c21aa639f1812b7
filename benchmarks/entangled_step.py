"""Entangled weights: what a forward and backward pass costs beside the plain networks, in time and in memory.

`entangled` runs every choice as a mixture, so the largest plain network is its limit; the sum of padded slices is what
weight entanglement costs when the slices themselves are made. `sliced` runs one path of the shared weights, beside the
plain network that is extracted for it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from common import interleave, median_ms, median_ratio, print_machine, print_table
from torch import Tensor, nn

from espalier.nas.architecture import Architecture
from espalier.nas.choices import ElasticChoice
from espalier.nas.device import accelerator, place
from espalier.nas.elastic.conv import ElasticConv2d, kernel_dim
from espalier.nas.elastic.dims import Dim
from espalier.nas.elastic.layer import Mode
from espalier.nas.gates import Mixture, mixture
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.conv_macro import ConvMacro
from espalier.nas.spaces.mobilenetv3 import MobileNetV3
from espalier.nas.spaces.vit import ViT

SPACES: dict[str, Callable[[Mode], SearchSpace]] = {
    "conv_macro": lambda mode: ConvMacro(entanglement=mode, dropout=0.0),
    "mobilenetv3, width .5": lambda mode: MobileNetV3((3, 32, 32), 10, width=0.5, reductions=3, entanglement=mode),
    "vit, tiny": lambda mode: ViT((3, 32, 32), 10, patch=4, depths=(2, 3, 4), entanglement=mode),
}


def passes(run: Callable[[], Tensor], parameters: list[nn.Parameter]) -> Callable[[], None]:
    """A forward and a backward pass, waited for."""

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        run().square().mean().backward()
        if parameters[0].is_cuda:
            torch.cuda.synchronize()

    return step


def mixtures(space: SearchSpace) -> dict[str, Mixture]:
    """Every choice open, with weights that learn."""
    device = next(space.parameters()).device
    sizes = {name: len(choice.options) for name, choice in space.choices().items()}
    return {name: mixture(torch.full((n,), 1 / n, device=device, requires_grad=True)) for name, n in sizes.items()}


def of_space(title: str, make: Callable[[Mode], SearchSpace], images: int, rounds: int, device: torch.device) -> None:
    """Print the table of one space."""
    torch.manual_seed(0)
    gated, superposed = (place(make(mode).train(), device) for mode in ("gate", "superpose"))
    assert isinstance(gated, SearchSpace)
    assert isinstance(superposed, SearchSpace)
    x = torch.randn(images, *gated.input_shape, device=device).to(memory_format=torch.channels_last)
    largest = Architecture({name: choice.options[-1] for name, choice in gated.choices().items()})
    path = gated.sample(torch.Generator().manual_seed(1))
    plain = {a: place(gated.build(a, weights="inherited").train(), device) for a in (largest, path)}

    def of(network: nn.Module, run: Callable[[], Tensor]) -> Callable[[], None]:
        return passes(run, list(network.parameters()))

    contestants = {
        "largest plain": of(plain[largest], lambda: plain[largest](x)),
        "entangled, gated": of(gated, lambda: gated(x, mixtures(gated))),
        "entangled, superposed": of(superposed, lambda: superposed(x, mixtures(superposed))),
        "extracted": of(plain[path], lambda: plain[path](x)),
        "sliced": of(gated, lambda: gated(x, gated.gates(path))),
    }
    times = interleave(contestants, rounds=rounds, warmup=2)
    bases = {"entangled, gated": "largest plain", "entangled, superposed": "largest plain", "sliced": "extracted"}
    rows = [
        [name, median_ms(times[name]), median_ratio(times[name], times[base]), base] for name, base in bases.items()
    ]
    print_table(f"{title}, {images} images, {rounds} rounds", ["pass", "ms", "ratio", "to"], rows)


def of_layer(rounds: int, device: torch.device) -> None:
    """Print time and memory of one convolution with three inputs, outputs and kernels beside the sum of 27 slices."""
    torch.manual_seed(0)
    into, out, kernel = (
        ElasticChoice(n, o) for n, o in (("into", (32, 64, 128)), ("out", (64, 128, 256)), ("kernel", (3, 5, 7)))
    )
    layer = place(ElasticConv2d(Dim([into]), Dim([out]), kernel_dim(kernel), mode="superpose"), device)
    assert isinstance(layer, ElasticConv2d)
    theta = {c.name: torch.full((3,), 1 / 3, device=device, requires_grad=True) for c in (into, out, kernel)}
    x = torch.randn(8, 128, 8, 8, device=device, requires_grad=True)

    def naive() -> Tensor:
        weight = torch.zeros_like(layer.weight)
        for i, o, k in itertools.product(range(3), repeat=3):
            inner = slice((7 - int(kernel.options[k])) // 2, (7 + int(kernel.options[k])) // 2)
            part = layer.weight[: int(out.options[o]), : int(into.options[i]), inner, inner]
            edge = (7 - int(kernel.options[k])) // 2
            pads = (edge, edge, edge, edge, 0, 128 - int(into.options[i]), 0, 256 - int(out.options[o]))
            weight = weight + theta["into"][i] * theta["out"][o] * theta["kernel"][k] * F.pad(part, pads)
        return F.conv2d(x, weight, padding=3)

    runs: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: F.conv2d(x, layer.weight, padding=3),
        "superposed": lambda: layer(x, {name: mixture(row) for name, row in theta.items()}),
        "sum of 27 padded slices": naive,
    }
    times = interleave({n: passes(run, [layer.weight]) for n, run in runs.items()}, rounds=rounds, warmup=2)
    plain = _saved(runs["plain"])
    rows = [
        [
            n,
            median_ms(times[n]),
            median_ratio(times[n], times["plain"]),
            f"{(_saved(r) - plain) / layer.weight.numel():.1f}",
        ]
        for n, r in runs.items()
    ]
    header = ["convolution", "ms", "ratio to plain", "saved beyond plain, in weights"]
    print_table(f"128 to 256 channels, 7x7, 8 images of 8x8, {rounds} rounds", header, rows)


def _saved(run: Callable[[], Tensor]) -> int:
    """Numbers that are kept for the backward pass, each storage once."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = run()
    del kept
    return sum(sizes.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = accelerator()
    print_machine(options.threads)
    of_layer(options.rounds, device)
    for title, make in SPACES.items():
        of_space(title, make, options.images, options.rounds, device)


if __name__ == "__main__":
    main()
