"""The latencies of the MobileNet space's blocks on a Pixel 1 that ProxylessNAS published.

Cai, Zhu & Han, "ProxylessNAS", ICLR 2019, section 3.2: TF-Lite, batch 1, one entry for each block by its shapes.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from torch import nn

from espalier.nas.cost.layer_sites import LayerSite, Shape, layer_sites
from espalier.nas.cost.table import CostTable, cost_table
from espalier.nas.errors import UserError
from espalier.nas.files import read_text
from espalier.nas.spaces.mobilenet import OPERATIONS, MobileNet

COLUMN = "mean_ms"


def pixel1_table(path: Path, space: MobileNet) -> CostTable:
    """The latency table of a MobileNet space, in milliseconds.

    Args:
        path: a CSV file, gzipped or not, with columns `op` (see `conv_key`, `block_key`) and `mean_ms`.
        space: with the default widths, for images of 224 x 224 pixels.

    Raises:
        UserError: the file cannot be read, or has no entry for a layer of this space.
    """
    entries = _read(path)

    def latency(key: str) -> float:
        if key not in entries:
            raise UserError(str(path), f"contains no entry {key}", allowed=entries, given=key)
        return entries[key]

    blocks = layer_sites(space)
    costs: dict[str, dict[str, float]] = {}
    for site, block in zip(blocks, space.blocks, strict=True):
        costs[site.choice] = {
            option: latency(_option_key(site, kernel, expansion)) for option, (kernel, expansion) in OPERATIONS.items()
        }
        if block.shortcut:
            costs[site.choice]["zero"] = 0.0
    return cost_table(
        space,
        unit="ms",
        fixed=sum(latency(key) for key in fixed_keys(space, blocks)),
        costs=costs,
        provenance={"device": "Pixel 1", "runtime": "TF-Lite", "file": path.name},
        where=str(path),
    )


def fixed_keys(space: MobileNet, blocks: list[LayerSite]) -> list[str]:
    """The entries that are part of every architecture: stem, first block, last convolution, classifier."""
    first, last = blocks[0].input_shape, blocks[-1].output_shape
    stem = (_width(space.stem), *first[1:])
    features = (_width(space.last), *last[1:])
    return [
        conv_key("Conv", space.input_shape, stem),
        block_key(stem, first, expand=1, kernel=3),
        conv_key("Conv_1", last, features),
        conv_key("Logits", features, space.num_classes),
    ]


def conv_key(name: str, before: Shape, after: Shape | int) -> str:
    """`Conv`, `Conv_1` or `Logits` with its shapes, such as `Conv_1-input:7x7x320-output:7x7x1280`."""
    return f"{name}-input:{_hwc(before)}-output:{after if isinstance(after, int) else _hwc(after)}"


def block_key(before: Shape, after: Shape, *, expand: int, kernel: int) -> str:
    """The entry of an inverted bottleneck, which includes the addition of its input (`idskip`)."""
    stride = before[1] // after[1]
    shapes = f"input:{_hwc(before)}-output:{_hwc(after)}"
    skip = int(before == after)
    return f"expanded_conv-{shapes}-expand:{expand}-kernel:{kernel}-stride:{stride}-idskip:{skip}"


def _option_key(site: LayerSite, kernel: int, expansion: int) -> str:
    return block_key(site.input_shape, site.output_shape, expand=expansion, kernel=kernel)


def _width(layers: nn.Sequential) -> int:
    convolution = layers[0]
    assert isinstance(convolution, nn.Conv2d)
    return convolution.out_channels


def _hwc(shape: Shape) -> str:
    channels, height, width = shape
    return f"{height}x{width}x{channels}"


def _read(path: Path) -> dict[str, float]:
    rows = csv.DictReader(read_text(path).splitlines())
    for column in ("op", COLUMN):
        if column not in (rows.fieldnames or []):
            raise UserError(str(path), f"has no column {column!r}", allowed=rows.fieldnames or [], given=column)
    entries: dict[str, float] = {}
    for row in rows:
        if not re.fullmatch(r"\d+(\.\d+)?", row[COLUMN] or ""):
            raise UserError(str(path), f"{COLUMN} of {row['op']} must be a number, not {row[COLUMN]!r}")
        entries[row["op"]] = float(row[COLUMN])
    return entries
