"""A table of latencies of a space's operators, each exported and timed alone: latencies that a search can add up.

An additive table is an approximation: in a whole network operators are fused, and find their input in a cache or not.
How far it is off for the dearest network stands in the table's provenance as `check`.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import fx, nn

from export.devices.base import Device, MeasureSpec
from export.latency import MeasuredLatency
from export.onnx import export_onnx
from nas.architecture import Architecture
from nas.choices import InputChoice, LayerChoice
from nas.cost_table import CostTable, cost_table
from nas.errors import UserError
from nas.files import read_json, write_json
from nas.measurement import Measurement
from nas.places import Shape, places
from nas.progress import Track, silent
from nas.space import SearchSpace

EMPTY_SHAPE: Shape = (1, 1, 1)
"""Of the input of the empty graph: what is left of its time is the runtime's own."""


def measure_latency_table(
    space: SearchSpace, device: Device, spec: MeasureSpec, path: Path, track: Track = silent
) -> CostTable:
    """Measure the latency of every operator of `space` on `device`, in milliseconds, and write the table to `path`.

        F_ij = sum over the places of choice i of max(0, median(operator j alone) - median(empty graph))
        fixed = max(0, median(network a) - sum_i F_i,a_i)

    The empty graph's time is what the runtime needs to be called, which a network pays once and not for each operator.
    Operators that are equal and see equal shapes are measured once. Identities are not measured: exporters take them
    out, so they cost 0, as does an option that passes nothing. Network a, whose rest after its operators is the fixed
    part, has in every choice the cheapest option that passes something: the fewer milliseconds are taken off, the
    smaller the error that is left, but a network without signal would lose its stem to the exporter.

    Args:
        space: on the CPU; its weights do not matter.
        device: runs the operators. spec: how each is timed.
        path: the table. Beside it, `<path>.partial` keeps what is measured, so that a killed measurement goes on.
        track: shows progress.

    Raises:
        UserError: the space has choices that change the operators themselves, an operator cannot be exported or run,
            or `<path>.partial` is of another device or another `spec`.
    """
    bench = _Bench(device, spec, path.with_name(f"{path.name}.partial"))
    every_place = places(space)
    operators: dict[str, tuple[nn.Module, Shape]] = {}
    used: dict[tuple[str, str], list[str]] = {}
    for place in every_place:
        choice = space.get_submodule(place.path)
        assert isinstance(choice, LayerChoice)
        for option in choice.options:
            keys = used.setdefault((place.choice, str(option)), [])
            operator = dict(choice.candidates.items()).get(str(option))
            if operator is not None and not isinstance(operator, nn.Identity):
                key = operator_key(operator, place.input_shape)
                operators[key] = (operator, place.input_shape)
                keys.append(key)
    empty_ms = bench.operator_ms("empty", nn.Identity(), EMPTY_SHAPE)
    alone_ms = {
        key: max(0.0, bench.operator_ms(key, *operators[key]) - empty_ms)
        for key in track(operators, "operators", len(operators))
    }
    costs: dict[str, dict[str, float]] = {}
    for (name, option), keys in used.items():
        costs.setdefault(name, {})[option] = sum(alone_ms[key] for key in keys)
    table = _with_fixed_part(space, costs, bench)
    table.write(path)
    bench.partial.unlink()
    return table


def operator_key(operator: nn.Module, input_shape: Shape) -> str:
    """A name shared by operators that compute alike, whatever their weights: of their code, layers and input shape."""
    traced = fx.symbolic_trace(operator)
    layers = [f"{name}: {module}" for name, module in traced.named_modules() if name]
    shapes = [tuple(parameter.shape) for parameter in traced.parameters()]
    return hashlib.sha256(repr((traced.code, layers, shapes, input_shape)).encode()).hexdigest()[:16]


def _with_fixed_part(space: SearchSpace, costs: dict[str, dict[str, float]], bench: _Bench) -> CostTable:
    def table(fixed: float, provenance: dict[str, Any]) -> CostTable:
        return cost_table(space, unit="ms", fixed=fixed, costs=costs, provenance=provenance, where="measured")

    bare = table(0.0, {})
    cheap, dear = (_extreme(space, bare, sign) for sign in (1, -1))
    fixed = max(0.0, bench.network_ms(space, cheap) - bare.cost(cheap))
    check = {
        "architecture": dict(dear),
        "measured_ms": bench.network_ms(space, dear),
        "table_ms": fixed + bare.cost(dear),
    }
    return table(fixed, {**bench.provenance(), "check": check})


def _extreme(space: SearchSpace, costs: CostTable, sign: int) -> Architecture:
    """The architecture of the cheapest options that pass something (sign 1), or of the dearest (-1)."""
    options = {}
    for name, choice in space.choices().items():
        if isinstance(choice, InputChoice):
            options[name] = choice.options[0]
        else:
            assert isinstance(choice, LayerChoice)
            passing = [o for i, o in enumerate(choice.options) if not choice.passes_nothing(i)] or choice.options
            options[name] = min(passing, key=lambda option: sign * costs.costs[name][str(option)])
    return Architecture(options)


class _Bench:
    """Times operators and networks, each once; what is timed is on disk at once."""

    def __init__(self, device: Device, spec: MeasureSpec, partial: Path) -> None:
        self.partial = partial
        self._device = device
        self._spec = spec
        self._header = {"device": device.fingerprint()["id"], "spec": asdict(spec)}
        self._environment = device.fingerprint()
        self._measured: dict[str, dict[str, Any]] = {}
        if partial.exists():
            state = read_json(partial)
            if {key: state.get(key) for key in self._header} != self._header:
                raise UserError(str(partial), "was measured on another device or in another way; delete it")
            self._measured = state["measured"]

    def operator_ms(self, key: str, operator: nn.Module, input_shape: Shape) -> float:
        """The median latency of an operator on a batch of inputs of that shape."""
        if key not in self._measured:
            with tempfile.TemporaryDirectory(prefix=".latency-", dir=self._folder()) as folder:
                file = Path(folder) / "operator.onnx"
                export_onnx(operator, input_shape, file, exporter="torchscript")
                self._keep(key, self._device.measure(file, self._spec))
        return float(self._measured[key]["ms"])

    def network_ms(self, space: SearchSpace, architecture: Architecture) -> float:
        """The median latency of the stand-alone network."""
        if architecture.id not in self._measured:
            timed = MeasuredLatency(space, self._device, self._spec, self._folder())
            self._keep(architecture.id, timed(architecture))
        return float(self._measured[architecture.id]["ms"])

    def provenance(self) -> dict[str, Any]:
        """Where and how it was measured, and how far the verdicts trust it."""
        verdicts = Counter(entry["verdict"] for entry in self._measured.values())
        return {"environment": self._environment, "spec": self._header["spec"], "verdicts": dict(verdicts)}

    def _folder(self) -> Path:
        self.partial.parent.mkdir(parents=True, exist_ok=True)
        return self.partial.parent

    def _keep(self, key: str, measurement: Measurement) -> None:
        self._measured[key] = {"ms": measurement.latency_ms, "verdict": measurement.verdict}
        write_json(self.partial, {**self._header, "measured": self._measured})
