"""A device that needs so many milliseconds by rule: what its tables must be can be worked out by hand.

Networks reach it through `written`, which stands in for the exporter and writes how often each kind of layer is run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from espalier.export.devices.base import MeasureSpec
from espalier.export.timing import summarize
from espalier.nas.measurement import Measurement

CALL_MS = 0.5
"""What a network costs without its layers."""


def layer_ms(kind: str) -> float:
    """By rule: a product costs what its shape says, a pool and a norm a little, all else nothing."""
    name, *sizes = kind.split()
    if name in ("Conv2d", "Linear"):
        a, b, *kernel = map(int, sizes)
        return (a + 2 * b) * (1 + sum(kernel)) / 64
    return {"AvgPool2d": 0.25, "LayerNorm": 0.125}.get(name, 0.0)


def written(model: nn.Module, input_shape: Sequence[int], path: Path, *, exporter: str) -> None:
    """Writes how often each kind of layer is run for an image, what computes the same counted once."""
    model.eval()
    if isinstance(model, fx.GraphModule):
        model.graph.eliminate_dead_code()
        model.recompile()
    counts: Counter[str] = Counter()
    pooled: list[Tensor] = []

    def record(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(layer, nn.AvgPool2d):
            if any(args[0] is known for known in pooled):
                return
            pooled.append(args[0])
        counts[_kind(layer)] += 1

    hooks = [layer.register_forward_hook(record) for layer in model.modules() if not list(layer.children())]
    with torch.no_grad():
        model(torch.zeros(1, *input_shape))
    for hook in hooks:
        hook.remove()
    path.write_text(json.dumps(counts))


def _kind(layer: nn.Module) -> str:
    if isinstance(layer, nn.Conv2d):
        return f"Conv2d {layer.in_channels // layer.groups} {layer.out_channels} {layer.kernel_size[0]}"
    if isinstance(layer, nn.Linear):
        return f"Linear {layer.in_features} {layer.out_features}"
    return type(layer).__name__


def additive_ms(layers: Mapping[str, int], of_layer: Callable[[str], float] = layer_ms) -> float:
    """The sum over the layers."""
    return CALL_MS + sum(count * of_layer(kind) for kind, count in layers.items())


class ScriptedDevice:
    """Needs `of_layers` for a network.

    Args:
        of_layers: milliseconds from how often each kind of layer is run.
        fail_after: files until a KeyboardInterrupt. identity: of the fingerprint.
        speed: of the whole machine in the n-th measurement.
    """

    name = "scripted"

    def __init__(
        self,
        of_layers: Callable[[Mapping[str, int]], float] = additive_ms,
        *,
        fail_after: int | None = None,
        identity: str = "a",
        speed: Callable[[int], float] = lambda call: 1.0,
    ) -> None:
        self.calls = 0
        self._of_layers = of_layers
        self._fail_after = fail_after
        self._identity = identity
        self._speed = speed

    def fingerprint(self, provider: str | None = None) -> dict[str, Any]:
        return {"id": self._identity, "cpu_model": "by rule", "provider": provider}

    def measure(self, onnx_file: Path, spec: MeasureSpec) -> Measurement:
        return self.measure_together([onnx_file], spec)[0]

    def measure_together(self, onnx_files: Sequence[Path], spec: MeasureSpec) -> list[Measurement]:
        if self.calls == self._fail_after:
            raise KeyboardInterrupt
        self.calls += 1
        measured = []
        for file in onnx_files:
            ms = self._of_layers(json.loads(file.read_text())) / self._speed(self.calls)
            environment = {**self.fingerprint(), "runs_per_session": 2}
            measured.append(Measurement(summarize([[ms, ms]] * spec.sessions), "stable", environment))
        return measured

    def close(self) -> None:
        """Nothing to let go of."""


@pytest.fixture
def without_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are built without ONNX files."""
    monkeypatch.setattr("espalier.export.latency_table.bench.export_onnx", written)
