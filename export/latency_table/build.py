"""A table of the latencies of a space's blocks, each timed as it stands in a network."""

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
"""Networks that are measured whole for what no block has."""
ANCHOR_SEED = 1
DRAWS_IN_VAIN = 200
"""In a row that gave networks known already: a small space has no others."""
ANCHOR_SECONDS = 3.0
"""Of a network's time budget, for each second of a block's: one network says what many blocks say together."""


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

    Blocks of one key are measured once, see `nas.cost.blocks`; how, see `export.latency_table.contexts` and `bench`.

    Args:
        space: on the CPU; its weights do not matter.
        device: runs everything.
        spec: how each block is timed; an even number of sessions, of which the order of the files takes turns, is
            better than an odd one.
        path: the table. Beside it, `<path>.partial` keeps what is measured, so that a killed measurement goes on.
        origin: how the space was asked for; stands in the table.
        track: shows progress.

    Raises:
        UserError: the space has no blocks that can be measured one by one, one cannot be exported or run, or
            `<path>.partial` is of something else.
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
        shares |= {key: bench.difference(key, contexts(plan.blocks[key])) for key in shares}  # those of slow moments
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


def with_signal(space: SearchSpace, bench: Bench, seed: int, seconds: float) -> Iterator[tuple[Architecture, Any]]:
    """Random architectures and their times, each class once, without networks that do not look at their image."""
    generator = torch.Generator().manual_seed(seed)
    seen: set[str] = set()
    in_vain = 0
    while in_vain < DRAWS_IN_VAIN:
        architecture = space.sample(generator)
        drawn = space.isomorphism_class(architecture)
        in_vain = in_vain + 1 if drawn in seen else 0
        if drawn not in seen:
            seen.add(drawn)
            if looks_at_its_image(space.build(architecture)):
                yield architecture, bench.network(architecture, seconds)


def looks_at_its_image(network: fx.GraphModule) -> bool:
    """Whether the output depends on more of the input than its shape, as zeros of that shape do."""
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
    for architecture, share in with_signal(space, bench, ANCHOR_SEED, ANCHOR_SECONDS * spec.seconds):
        found[architecture] = share.share
        if len(found) == ANCHORS:
            break
    return found
