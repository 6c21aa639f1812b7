"""Sparse networks for super-resolution at equal steps: soft shrinkage, hard thresholding, one-shot, beside dense.

All arms train the same EDSR-like network from the same fresh weights on the same patches: a phase at a constant
learning rate, at whose end the masks are fixed, and a phase in which it falls to zero along a cosine, with the
optimiser as it is. One-shot trains densely in the first phase. Every convolution has the same sparsity, exactly.
Results are lines of JSON, one for each arm; an arm that is cut off goes on at its last epoch.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from common import print_machine, print_table
from torch import Tensor, nn

from espalier.nas.device import accelerator, place
from espalier.nas.memory import keep_freed_memory
from espalier.nas.super_resolution.batches import Patches, WholeImages
from espalier.nas.super_resolution.files import load_pairs
from espalier.nas.super_resolution.pairs import Pairs, bicubic
from espalier.nas.super_resolution.quality import crop_border, evaluated_luma, psnr
from espalier.nas.super_resolution.task import SuperResolution
from espalier.nas.training import TrainSettings, train
from espalier.pruning.issp import HardThreshold, SoftShrink
from espalier.pruning.magnitude import GradualMagnitude, OneShotMagnitude
from espalier.pruning.masks import count_zeros, zeros_at
from espalier.pruning.patterns import Layerwise
from espalier.pruning.pruner import Pruner
from espalier.pruning.rigl import RigL
from espalier.pruning.training import SparseTraining
from espalier.pruning.weights import Weights, prunable_weights

SCALE = 2
METHODS: Mapping[str, Callable[[Weights, Layerwise, int], Pruner]] = {
    "iss-p": lambda weights, pattern, k: SoftShrink(weights, pattern, iterations=k),
    "iht": lambda weights, pattern, k: HardThreshold(weights, pattern, iterations=k),
    "one-shot": lambda weights, pattern, k: OneShotMagnitude(weights, pattern, iterations=k),
    "gradual": lambda weights, pattern, k: GradualMagnitude(weights, pattern, iterations=k),
    "rigl": lambda weights, pattern, k: RigL(weights, pattern, iterations=k),
}
ARMS = ("dense", "iss-p .9", "iht .9", "one-shot .9", "iss-p .95", "gradual .9", "rigl .9")


class Residual(nn.Module):
    """Two convolutions around which the input is added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


class Enlarger(nn.Module):
    """What EDSR's blocks and pixel shuffle add to bicubic interpolation: a few thousand steps are then enough."""

    def __init__(self, blocks: int, channels: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        residuals = [Residual(channels) for _ in range(blocks)]
        self.body = nn.Sequential(*residuals, nn.Conv2d(channels, channels, 3, padding=1))
        self.up = nn.Conv2d(channels, SCALE**2 * channels, 3, padding=1)
        self.tail = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.head(x)
        enlarged = F.pixel_shuffle(self.up(features + self.body(features)), SCALE)
        return self.tail(enlarged) + F.interpolate(x, scale_factor=SCALE, mode="bicubic")


def run_arm(arm: str, train_pairs: Pairs, test_pairs: Pairs, options: argparse.Namespace) -> dict[str, object]:
    """Train one arm, or go on with it; its result as data."""
    method, _, sparsity = arm.partition(" ")
    torch.manual_seed(options.seed)
    device = accelerator()
    model = Enlarger(options.blocks, options.channels)
    place(model, device)
    weights = prunable_weights(model)
    generator = torch.Generator().manual_seed(options.seed)
    patches = Patches(
        train_pairs, options.patch, options.batch, generator=generator, per_image=options.per_image, device=device
    )
    pruner = None
    if sparsity:
        zeros = {name: zeros_at(float(sparsity), weight.numel()) for name, weight in weights.items()}
        pruner = METHODS[method](weights, Layerwise(zeros), options.epochs * len(patches))
    task, test = SuperResolution(SCALE), WholeImages(test_pairs, device=device)
    common = {
        "epochs": options.epochs,
        "optimizer": "adam",
        "lr": options.lr,
        "weight_decay": 0.0,
        "clip_grad_norm": None,
    }
    started, optimizer, found = time.perf_counter(), None, {}
    for phase, schedule in enumerate(("constant", "cosine"), start=1):
        settings = TrainSettings(**common, schedule=schedule)  # type: ignore[arg-type]
        training = SparseTraining(model, settings, patches, task=task, generator=generator, pruner=pruner)
        if optimizer is not None:
            training.optimizer.load_state_dict(optimizer)
            training.schedule.step_update(0)
        rows = train(training, checkpoint=options.out / f"{arm.replace(' ', '')}-{options.seed}-{phase}.pt")
        optimizer = training.optimizer.state_dict()
        found[f"psnr_db_after_phase_{phase}"] = round(task.evaluate(model, test), 4)
        found[f"loss_of_phase_{phase}"] = rows[-1]["loss"]
    counted = count_zeros(model, weights)
    seconds = round(time.perf_counter() - started)
    steps = 2 * options.epochs * len(patches)
    return {
        "arm": arm,
        "seed": options.seed,
        "steps": steps,
        "sparsity": counted.of_prunable,
        **found,
        "seconds": seconds,
    }


def bicubic_psnr(pairs: Pairs) -> float:
    """What enlarging by PIL's bicubic filter reaches, in dB."""
    values = []
    for pair in pairs:
        images = (bicubic(pair.low, *pair.high.shape[1:]), pair.high)
        values.append(psnr(*(crop_border(evaluated_luma(image.double() / 255), SCALE) for image in images)))
    return sum(values) / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="folders or zip files of large images")
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and results.jsonl")
    parser.add_argument("--arms", nargs="+", default=ARMS[:5], choices=ARMS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--patch", type=int, default=24)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--per-image", type=int, default=4, help="patches of each image in an epoch")
    parser.add_argument("--epochs", type=int, default=10, help="of each of the two phases")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    print_machine(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    parts = [load_pairs(path, SCALE) for path in options.train]
    train_pairs = Pairs(tuple(pair for part in parts for pair in part), "training")
    test_pairs = load_pairs(options.test, SCALE)
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for arm in options.arms:
        if not any(row["arm"] == arm and row["seed"] == options.seed for row in done):
            done.append(run_arm(arm, train_pairs, test_pairs, options))
            with results.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
            print(json.dumps(done[-1]), flush=True)
    rows = [
        [row["arm"], f"{row['sparsity']:.4f}", *(f"{row[f'psnr_db_after_phase_{phase}']:.2f}" for phase in (1, 2))]
        for row in done
        if row["seed"] == options.seed
    ]
    print_table(
        f"PSNR in dB, {len(test_pairs)} images, x{SCALE}, seed {options.seed}; bicubic {bicubic_psnr(test_pairs):.2f}",
        ["arm", "sparsity", "masks fixed", "at the end"],
        rows,
    )


if __name__ == "__main__":
    main()
