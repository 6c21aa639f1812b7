"""The time of a network by operator, by source module and by fused kernel.

ONNX Runtime's profiler slows every run down, so the profile is a pass of its own, and only its proportions count: they
are scaled to the median of a measurement without it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espalier.export.devices.base import Device, MeasureSpec
from espalier.export.devices.passes import passes
from espalier.export.fusion import Origin, origins
from espalier.nas.intervals import median_interval
from espalier.nas.measurement import Measurement

RUNTIME = "(runtime)"
"""The module of nodes that the runtime has put in, such as changes of layout."""
UNNAMED = "(not named)"


@dataclass(frozen=True)
class Kernel:
    """A node of the optimised network.

    Attributes:
        name: the runtime's.
        operator: its type.
        provider: that ran it.
        module: of the source, by the names that the exporter has left; `UNNAMED` where it has left none, `RUNTIME`
            where the node is not in the file.
        absorbed: the nodes of the file that it does the work of, as `operator name`, in their order; empty where the
            runtime has put it in, or nothing is known.
        ms: scaled to the timed total.
        share: of it.
        ci95: interval of the share over sessions.
    """

    name: str
    operator: str
    provider: str | None
    module: str
    absorbed: tuple[str, ...]
    ms: float
    share: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class Group:
    """Kernels that have something in common.

    Attributes:
        name: what they have in common.
        kernels: how many.
        ms, share, ci95: as a kernel's, of all of them.
    """

    name: str
    kernels: int
    ms: float
    share: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class OperatorProfile:
    """Where the time of a network goes.

    Attributes:
        measured_ms: the median of a measurement without the profiler; the sum of all kernels.
        profiled_ms: what the profiler has counted inside kernels, before it is scaled.
        kernels: in the order they are run.
        by_operator, by_module: the most expensive first.
        depth: of the modules' names.
    """

    measured_ms: float
    profiled_ms: float
    kernels: tuple[Kernel, ...]
    by_operator: tuple[Group, ...]
    by_module: tuple[Group, ...]
    depth: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, by the names of the attributes."""
        return asdict(self)


def profile_operators(
    device: Device, onnx_file: Path, measurement: Measurement, spec: MeasureSpec, *, depth: int = 2
) -> OperatorProfile:
    """Profile the file in `spec.sessions` sessions, and scale what is found to its `measurement`.

        ms_i = p50 share_i,   share_i = mean over sessions of t_i / sum_j t_j

    t_i is the median time of kernel i over the runs of a session.

    Args:
        depth: modules are grouped by so many levels of their names: at 2, `blocks.3.1.conv` is in `blocks.3`.

    Raises:
        UserError: as `Device.measure`; the device has no agent.
    """
    answers = passes(device, "operators", [onnx_file], spec)
    first = answers[0]["nodes"]
    times_ms = np.array([_in_order_of(first, answer["nodes"]) for answer in answers])
    found = origins(onnx_file, base64.b64decode(answers[0]["graph"]))
    return scaled_profile(first, times_ms, found, measurement.latency_ms, depth)


def scaled_profile(
    nodes: Sequence[dict[str, Any]], times_ms: np.ndarray, found: dict[str, Origin], measured_ms: float, depth: int = 2
) -> OperatorProfile:
    """The profile of `nodes` (`name`, `op`, `provider`), in the order they are run.

    Args:
        times_ms: of each session and node, shape `(sessions, nodes)`.
        found: where the nodes come from, by name.
        measured_ms: what all of them take together.
    """
    shares = times_ms / times_ms.sum(axis=1, keepdims=True)
    kernels = tuple(
        Kernel(
            name=node["name"],
            operator=node["op"],
            provider=node["provider"],
            module=_module(found.get(node["name"])),
            absorbed=found[node["name"]].absorbed if node["name"] in found else (),
            **_of(shares[:, [i]], measured_ms),
        )
        for i, node in enumerate(nodes)
    )
    return OperatorProfile(
        measured_ms=measured_ms,
        profiled_ms=float(times_ms.sum(axis=1).mean()),
        kernels=kernels,
        by_operator=_groups(kernels, lambda kernel: kernel.operator, shares, measured_ms),
        by_module=_groups(kernels, lambda kernel: _cut(kernel.module, depth), shares, measured_ms),
        depth=depth,
    )


def _module(origin: Origin | None) -> str:
    if origin is not None and not origin.absorbed:
        return RUNTIME
    return UNNAMED if origin is None else origin.module or UNNAMED


def _cut(module: str, depth: int) -> str:
    return ".".join(module.split(".")[:depth])


def _groups(
    kernels: Sequence[Kernel], name_of: Callable[[Kernel], str], shares: np.ndarray, measured_ms: float
) -> tuple[Group, ...]:
    members: dict[str, list[int]] = {}
    for i, kernel in enumerate(kernels):
        members.setdefault(name_of(kernel), []).append(i)
    groups = [Group(name, len(chosen), **_of(shares[:, chosen], measured_ms)) for name, chosen in members.items()]
    return tuple(sorted(groups, key=lambda group: -group.ms))


def _of(shares: np.ndarray, measured_ms: float) -> dict[str, Any]:
    """What some kernels take together, of their shares in each session, shape `(sessions, kernels)`."""
    together = shares.sum(axis=1)
    share = float(together.mean())
    return {"ms": measured_ms * share, "share": share, "ci95": median_interval(together)}


def _in_order_of(first: Sequence[dict[str, Any]], nodes: Sequence[dict[str, Any]]) -> list[float]:
    """The times of the nodes in the order of another session: one file is optimised alike each time on one device."""
    waiting: dict[str, list[float]] = {}
    for node in nodes:
        waiting.setdefault(node["name"], []).append(node["ms"])
    return [waiting[node["name"]].pop(0) for node in first]
