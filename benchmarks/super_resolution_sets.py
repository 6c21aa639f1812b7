"""PSNR and SSIM of networks on sets of images, beside bicubic interpolation, with intervals over the images.

Y of BT.601, without a border as wide as the scale; low resolution by PIL's bicubic filter. Without `--weights` the
network is trained here, with Adam at 2e-4, for `--epochs` on patches of the images of `--train`. The gain is the mean
difference to bicubic on the same images; its interval is narrow where those of the two means are wide.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from common import print_machine, print_table
from torch import Tensor, nn

from espalier.nas.checkpoint import load_weights, save_weights
from espalier.nas.device import accelerator
from espalier.nas.super_resolution import (
    Pairs,
    Patches,
    SuperResolution,
    gain,
    load_pairs,
    on_luma,
    super_resolution_factory,
    validate,
)
from espalier.nas.super_resolution.pairs import bicubic
from espalier.nas.training import Training, TrainSettings


class Bicubic(nn.Module):
    """Enlarges by PIL, one image at a time."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        small = (255 * x[0]).round().to(torch.uint8).cpu()
        height, width = (self.scale * side for side in small.shape[1:])
        return bicubic(small, height, width)[None].to(x.device) / 255


def trained(network: nn.Module, images: Pairs, arguments: argparse.Namespace) -> nn.Module:
    """The network after its epochs, each of which prints a line."""
    device, generator = accelerator(), torch.Generator().manual_seed(arguments.seed + 1)
    settings = TrainSettings(
        epochs=arguments.epochs,
        batch_size=16,
        optimizer="adam",
        lr=arguments.lr,
        weight_decay=0,
        schedule="cosine",
        clip_grad_norm=None,
    )
    batches = Patches(images, arguments.patch, 16, generator=generator, per_image=arguments.per_image, device=device)
    task = SuperResolution(arguments.scale)
    training = Training(network.to(device), settings, batches, task=task, generator=generator)
    for _ in range(settings.epochs):
        row = training.run_epoch()
        print(f"epoch {row['epoch']:.0f}: loss {row['loss']:.5f}, {row['seconds']:.0f} s", flush=True)
    return training.result


def joined(paths: list[Path], scale: int) -> Pairs:
    """The images of several sets."""
    sets = [load_pairs(path, scale) for path in paths]
    return Pairs(tuple(pair for one in sets for pair in one), "+".join(one.name for one in sets))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sets", type=Path, nargs="+", help="folders or zip files of large images to judge by")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--network", help="such as edsr:blocks=8,channels=32; without it bicubic stands alone")
    parser.add_argument("--weights", type=Path, help="of the network; written by --save, or published ones")
    parser.add_argument("--train", type=Path, nargs="+", help="folders or zip files of large images to train on")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--patch", type=int, default=24, help="side of a small patch")
    parser.add_argument("--per-image", type=int, default=16, help="patches of each image in an epoch")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--save", type=Path, help="where to write the trained weights")
    parser.add_argument("--self-ensemble", action="store_true", help="judge the mean over eight symmetric forms too")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.network and (arguments.weights is None) == (arguments.train is None):
        parser.error("--network needs either --weights or --train")

    print_machine(torch.get_num_threads())
    task, network, device = SuperResolution(arguments.scale), None, accelerator()
    if arguments.network:
        make = super_resolution_factory(arguments.network, arguments.scale)
        torch.manual_seed(arguments.seed)
        network = make()
        if arguments.weights:
            load_weights(arguments.weights, network)
        else:
            images = joined(arguments.train, arguments.scale)
            images = images.upscaled_luma() if on_luma(network) else images
            network = trained(network, images, arguments)
            if arguments.save:
                save_weights(arguments.save, network)
        network = network.to(device)

    rows = []
    for path in arguments.sets:
        pairs = load_pairs(path, arguments.scale, grey=True)
        baseline = validate(task, Bicubic(arguments.scale), pairs)
        rows.append((pairs.name, "bicubic", baseline.psnr_db.text(), f"{baseline.ssim.value:.4f}", "", ""))
        if network is None:
            continue
        seen = pairs.upscaled_luma() if on_luma(network) else pairs
        for label, ensemble in ((arguments.network, False), (f"{arguments.network}, self-ensemble", True)):
            if ensemble and not arguments.self_ensemble:
                continue
            started = time.perf_counter()
            found = validate(task, network, seen, device=device, self_ensemble=ensemble)
            seconds = f"{time.perf_counter() - started:.1f}"
            better = gain(found, baseline).text()
            rows.append((pairs.name, label, found.psnr_db.text(), f"{found.ssim.value:.4f}", better, seconds))
    header = ("images", "network", "PSNR in dB [95 %]", "SSIM", "gain in dB [95 %]", "seconds")
    print_table(f"Super-resolution x{arguments.scale}", header, rows)


if __name__ == "__main__":
    main()
