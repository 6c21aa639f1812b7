"""Whether `nas profile` says the same twice, and a bare loop over ONNX Runtime beside it.

Each model is timed by two independent commands (other processes, other sessions), and by two independent loops of 100
runs after 10 warm ones, whose mean is what is usually reported. In a round all models take turns, so that the two
timings of one model lie a while apart. DATA holds `onnx/` and `weights/resnet20_cifar10jpeg.npz`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import print_machine, print_table
from resnet20 import ResNet20

from espalier.export.onnx import export_onnx
from espalier.nas.checkpoint import load_weights
from espalier.nas.models import network_factory

NAS = str(Path(sys.executable).with_name("nas"))
LOOP = """
import sys, time
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
argument = session.get_inputs()[0]
shape = [size if isinstance(size, int) else 1 for size in argument.shape]
feed = {argument.name: numpy.random.default_rng(0).standard_normal(shape).astype(numpy.float32)}
for _ in range(10):
    session.run(None, feed)
began = time.perf_counter()
for _ in range(100):
    session.run(None, feed)
print((time.perf_counter() - began) * 10)
"""


def models(data: Path, folder: Path) -> dict[str, Path]:
    """ONNX files by name: two of other people, ResNet-20 with trained weights, MobileNetV3 and a small ViT of timm."""
    torch.manual_seed(0)
    found = {path.stem: path for path in sorted((data / "onnx").glob("*.onnx"))}
    resnet = ResNet20()
    load_weights(data / "weights" / "resnet20_cifar10jpeg.npz", resnet)
    for name, size, network in (
        ("resnet20", 32, resnet),
        ("mobilenetv3_small_050", 224, _of_timm("mobilenetv3_small_050", 224)),
        ("vit_tiny_patch16", 112, _of_timm("vit_tiny_patch16_224", 112)),
    ):
        found[name] = export_onnx(network, (3, size, size), folder / f"{name}.onnx", exporter="torchscript").path
    return found


def _of_timm(name: str, size: int) -> torch.nn.Module:
    return network_factory(f"timm:{name}", image_shape=(3, size, size), classes=1000)()


def profiled(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What `nas profile` says."""
    command = [NAS, "profile", str(path), "--json", "--threads", str(options.threads)]
    command += ["--sessions", str(options.sessions), "--seconds", str(options.seconds)]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def looped(path: Path, options: argparse.Namespace) -> float:
    """The mean of the loop, in milliseconds."""
    command = [sys.executable, "-c", LOOP, str(path), str(options.threads)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def overlap(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether the intervals of two profiles have a value in common."""
    (a_low, a_high), (b_low, b_high) = a["latency"]["ci95"], b["latency"]["ci95"]
    return bool(a_low <= b_high and b_low <= a_high)


def difference(values: list[float]) -> float:
    """The largest of two or more as a share of the smallest, less 1."""
    return max(values) / min(values) - 1


def row(name: str, profiles: list[dict[str, Any]], means: list[float]) -> list[str]:
    """The first two profiles and loops; differences and overlaps over all pairs."""
    pairs = [overlap(a, b) for a, b in combinations(profiles, 2)]
    medians = [profile["latency"]["p50"] for profile in profiles]
    return [
        name,
        *map(_median, profiles[:2]),
        " ".join(profile["verdict"] for profile in profiles[:2]),
        f"{100 * difference(medians):.1f} %",
        f"{sum(pairs)} of {len(pairs)}",
        " ".join(f"{mean:.3f}" for mean in means[:2]),
        f"{100 * difference(means):.1f} %",
    ]


def _median(profile: dict[str, Any]) -> str:
    low, high = profile["latency"]["ci95"]
    return f"{profile['latency']['p50']:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=2, help="independent commands for each model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    print_machine(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        files = models(options.data, Path(folder))
        profiles: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
        means: dict[str, list[float]] = {name: [] for name in files}
        for _ in range(options.rounds):
            for name, path in files.items():
                profiles[name].append(profiled(path, options))
                means[name].append(looped(path, options))
    header = ["model", "nas profile, first (ms)", "second (ms)", "verdicts", "differ by", "overlap"]
    header += ["bare loop, mean (ms)", "differ by"]
    print_table(
        f"{options.rounds} independent timings of each model, one after the other",
        header,
        [row(name, profiles[name], means[name]) for name in files],
    )
    medians = {name: [profile["latency"]["p50"] for profile in profiles[name]] for name in files}
    for what, values in (("nas profile", medians), ("bare loop", means)):
        print(f"{what}: median difference {100 * np.median([difference(v) for v in values.values()]):.1f} %")


if __name__ == "__main__":
    main()
