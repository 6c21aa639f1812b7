"""Build a table of the latencies of a space's blocks, each timed between neighbours as in a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx

from espalier.export.devices.base import Device, MeasureSpec
from espalier.export.latency_table.bench import Bench
from espalier.export.latency_table.contexts import contexts
from espalier.nas.architecture import Architecture
from espalier.nas.cost.block_plan import block_plan
from espalier.nas.cost.block_table import BlockTable, Entry, space_fingerprint
from espalier.nas.progress import Track, silent
from espalier.nas.space import SearchSpace

ANCHORS = 4
"""Networks measured as a whole, to find the time outside of all blocks."""
ANCHOR_SEED = 1
MAX_REPEATED_DRAWS = 200
"""After so many consecutive draws of known networks, the space is assumed to have no others."""
ANCHOR_SECONDS = 3.0
"""Seconds of a network's time budget for each second of a block's: a network stands for many blocks."""


def build_block_table(
    space: SearchSpace,
    device: Device,
    spec: MeasureSpec,
    path: Path,
    *,
    origin: Mapping[str, Any] | None = None,
    track: Track = silent,
) -> BlockTable:
    """Measure every block of `space` on `device`, in milliseconds, and write the table to `path`.

        fixed = max(0, median over a few networks a of T(a) - sum_s F_key(s, a))

    Blocks with the same key are measured once (see `nas.cost.blocks`). For the measurement see
    `export.latency_table.contexts` and `bench`.

    Args:
        space: on the CPU; its weights do not matter.
        device: runs everything.
        spec: how each block is timed. The order of the files alternates between sessions, so an even number of
            sessions is better than an odd one.
        path: the table. `<path>.partial` beside it stores the measurements, so that an interrupted build can be
            resumed.
        origin: how the space was specified; stored in the table.
        track: shows progress.

    Raises:
        UserError: the blocks of the space cannot be measured separately, one cannot be exported or run, or
            `<path>.partial` belongs to something else.
    """
    plan = block_plan(space)
    partial = path.with_name(f"{path.name}.partial")
    bench = Bench(space, device, spec, partial, label=space_fingerprint(space))
    try:
        shares = {
            key: bench.difference(key, contexts(block))
            for key, block in track(plan.blocks.items(), "blocks", len(plan.blocks))
        }
        anchors = _anchors(space, bench, spec)
        shares |= {
            key: bench.difference(key, contexts(plan.blocks[key])) for key in shares
        }  # again for those timed in slow moments
    finally:
        bench.close()
    ms = bench.reference_ms
    entries = {
        key: Entry(
            ms=max(0.0, share.share * ms),
            ci95=(share.ci95[0] * ms, share.ci95[1] * ms),
            count=share.count,
            verdict=share.verdict,
            family=plan.blocks[key].family,
        )
        for key, share in shares.items()
    }
    bare = BlockTable(
        unit="ms",
        space=space_fingerprint(space),
        origin=dict(origin or {"space": type(space).__name__}),
        device=bench.environment,
        spec=asdict(spec),
        reference_ms=ms,
        fixed=0.0,
        slots=plan.slots,
        entries=entries,
    )
    costs = bare.costs(space)
    rests = [share * ms - costs.cost(architecture) for architecture, share in anchors.items()]
    table = replace(bare, fixed=max(0.0, float(np.median(rests))))
    table.write(path)
    partial.unlink()
    return table


def random_networks(space: SearchSpace, bench: Bench, seed: int, seconds: float) -> Iterator[tuple[Architecture, Any]]:
    """Random architectures and their times, each class once, without networks that ignore their image."""
    generator = torch.Generator().manual_seed(seed)
    seen: set[str] = set()
    repeated = 0
    while repeated < MAX_REPEATED_DRAWS:
        architecture = space.sample(generator)
        drawn = space.isomorphism_class(architecture)
        repeated = repeated + 1 if drawn in seen else 0
        if drawn not in seen:
            seen.add(drawn)
            if depends_on_image(space.build(architecture)):
                yield architecture, bench.network(architecture, seconds)


def depends_on_image(network: fx.GraphModule) -> bool:
    """Whether the output depends on more than the shape of the input (as zeros of that shape do)."""
    (output,) = (node for node in network.graph.nodes if node.op == "output")
    waiting, seen = [output], {output}
    while waiting:
        node = waiting.pop()
        if node.op == "placeholder":
            return True
        read = [] if node.target is torch.zeros_like else [n for n in node.all_input_nodes if n not in seen]
        waiting += read
        seen.update(read)
    return False


def _anchors(space: SearchSpace, bench: Bench, spec: MeasureSpec) -> dict[Architecture, float]:
    found: dict[Architecture, float] = {}
    for architecture, share in random_networks(space, bench, ANCHOR_SEED, ANCHOR_SECONDS * spec.seconds):
        found[architecture] = share.share
        if len(found) == ANCHORS:
            break
    return found
