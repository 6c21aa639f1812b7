"""The time of a network by operator, by source module and by fused kernel.

ONNX Runtime's profiler slows every run down, so the profile is a separate pass of which only the proportions are used:
they are scaled to the median of a measurement without it.
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
"""The module of nodes inserted by the runtime, such as layout conversions."""
UNNAMED = "(not named)"


@dataclass(frozen=True)
class Kernel:
    """A node of the optimised network.

    Attributes:
        name: the runtime's name.
        operator: its type.
        provider: the provider that ran it.
        module: module of the source, from the names kept by the exporter; `UNNAMED` if there are none, `RUNTIME` if
            the node is not in the file.
        absorbed: the nodes of the file that are fused into it, as `operator name`, in order; empty if the runtime
            inserted it, or if nothing is known.
        ms: time, scaled to the measured total.
        share: share of the total.
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
        kernels: number of kernels.
        ms: time of all of them.
        share: share of the total.
        ci95: interval of the share over sessions.
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
        profiled_ms: time inside kernels according to the profiler, before scaling.
        kernels: in the order in which they run.
        by_operator: the most expensive first.
        by_module: the most expensive first.
        depth: levels of the modules' names.
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
    """Profile the file in `spec.sessions` sessions, and scale the result to its `measurement`.

        ms_i = p50 share_i,   share_i = mean over sessions of t_i / sum_j t_j

    t_i is the median time of kernel i over the runs of a session.

    Args:
        device: a device with an agent.
        onnx_file: the network.
        measurement: its measurement without the profiler.
        spec: how to run it.
        depth: levels of names by which modules are grouped: at 2, `blocks.3.1.conv` is in `blocks.3`.

    Raises:
        UserError: as for `Device.measure`, or the device has no agent.
    """
    answers = passes(device, "operators", [onnx_file], spec)
    first = answers[0]["nodes"]
    times_ms = np.array([_in_order_of(first, answer["nodes"]) for answer in answers])
    found = origins(onnx_file, base64.b64decode(answers[0]["graph"]))
    return scaled_profile(first, times_ms, found, measurement.latency_ms, depth)


def scaled_profile(
    nodes: Sequence[dict[str, Any]], times_ms: np.ndarray, found: dict[str, Origin], measured_ms: float, depth: int = 2
) -> OperatorProfile:
    """The profile of nodes from their times.

    Args:
        nodes: with `name`, `op` and `provider`, in the order in which they run.
        times_ms: of each session and node, `(sessions, nodes)`.
        found: origin of the nodes, by name.
        measured_ms: time of all nodes together.
        depth: see `profile_operators`.
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
    """Time and share of some kernels together, from their shares in each session, `(sessions, kernels)`."""
    together = shares.sum(axis=1)
    share = float(together.mean())
    return {"ms": measured_ms * share, "share": share, "ci95": median_interval(together)}


def _in_order_of(first: Sequence[dict[str, Any]], nodes: Sequence[dict[str, Any]]) -> list[float]:
    """The times of the nodes in the order of the first session; a device optimises a file the same way each time."""
    waiting: dict[str, list[float]] = {}
    for node in nodes:
        waiting.setdefault(node["name"], []).append(node["ms"])
    return [waiting[node["name"]].pop(0) for node in first]
