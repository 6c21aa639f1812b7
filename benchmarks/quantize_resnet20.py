"""ResNet-20 on CIFAR-10 in every form: bytes, accuracy on all test images with its drop, time as a ratio to fp32.

Beside the forms that `nas quantize` tries stand those that it does not: 8-bit weights on a processor whose instructions
saturate, one scale for a tensor, and symmetric int8 activations.

    python benchmarks/quantize_resnet20.py ../shared/data
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import print_machine, print_table
from resnet20 import ResNet20

from espalier.export.comparison import compare
from espalier.export.devices.base import MeasureSpec
from espalier.export.devices.local import LocalDevice
from espalier.export.errors import ExportError
from espalier.export.onnx import export_onnx
from espalier.export.quantize.forms import METHODS, Method, Quantizer
from espalier.export.quantize.instructions import int8_scheme
from espalier.export.quantize.running import outputs
from espalier.export.quantize.source import read_source
from espalier.nas.checkpoint import load_weights
from espalier.nas.data import Batches, Images, load
from espalier.nas.paired import PairedDrop

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def batches(images: Images, size: int = 100) -> Iterator[np.ndarray]:
    for x, _ in Batches(images, size, mean=MEAN, std=STD):
        yield np.ascontiguousarray(x.numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with cifar10/ and weights/resnet20_cifar10jpeg.npz")
    parser.add_argument("--seconds", type=float, default=1.0, help="of timed runs of each file in a comparison")
    parser.add_argument("--images", type=int, default=256, help="to calibrate with")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print_machine(1)
    pool, test = load("parquet", path=arguments.data / "cifar10")
    assert test is not None
    calibration = next(batches(pool.subset(torch.arange(arguments.images)), arguments.images))
    network = ResNet20()
    load_weights(arguments.data / "weights" / "resnet20_cifar10jpeg.npz", network)
    spec = MeasureSpec(threads=1, sessions=5, seconds=arguments.seconds)
    with tempfile.TemporaryDirectory() as folder, closing(LocalDevice()) as device:
        path = Path(folder) / "fp32.onnx"
        export_onnx(network, (3, 32, 32), path)
        source = read_source(path)
        scheme = int8_scheme(device.fingerprint())
        print(f"{scheme.reason}: weights of {7 if scheme.reduce_range else 8} bits, {len(test):,} test images")

        def quantizer(*, per_channel: bool = True, **changes: bool) -> Quantizer:
            changed = replace(scheme, **changes)
            return Quantizer(source, changed, calibration, Path(folder), per_channel=per_channel)

        contestants: list[tuple[str, Quantizer, Method]] = [(method, quantizer(), method) for method in METHODS]
        contestants += [
            ("int8-minmax, 8-bit weights", quantizer(reduce_range=False), "int8-minmax"),
            ("int8-minmax, a scale for a tensor", quantizer(per_channel=False), "int8-minmax"),
            ("the same, 8-bit weights", quantizer(per_channel=False, reduce_range=False), "int8-minmax"),
            ("int8-minmax, symmetric int8", quantizer(signed=True, reduce_range=False), "int8-minmax"),
        ]
        right = outputs(path, source, batches(test)).argmax(axis=1) == test.labels.numpy()
        rows = [("fp32", f"{path.stat().st_size:,}", f"{right.mean():.2%}", "", "1")]
        for name, writer, method in contestants:
            form = Path(folder) / "form.onnx"
            writer.write(method, form)
            try:
                other = outputs(form, source, batches(test)).argmax(axis=1) == test.labels.numpy()
            except ExportError as error:
                rows.append((name, f"{form.stat().st_size:,}", error.problem[:80], "", ""))
                continue
            drop = PairedDrop.of(right, other)
            timed = compare(device, [path, form], spec).others[0]
            rows.append(
                (
                    name,
                    f"{form.stat().st_size:,}",
                    f"{other.mean():.2%}",
                    f"{drop.value:.2%} [{drop.low:.2%}, {drop.high:.2%}]",
                    f"{timed.ratio:.2f} [{timed.ci95[0]:.2f}, {timed.ci95[1]:.2f}] {timed.measurement.verdict}",
                )
            )
    print_table("ResNet-20, batch 1, one thread", ("form", "bytes", "accuracy", "drop", "time over fp32's"), rows)


if __name__ == "__main__":
    main()
