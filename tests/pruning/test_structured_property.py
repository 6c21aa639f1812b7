"""Random convolutional networks: whatever the graph, the smaller one equals the masked one and meets its target."""

from __future__ import annotations

import json

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structured_nets import Head
from torch import Tensor, nn

from espalier.pruning.structure import apply_structure
from espalier.pruning.structured import Target, shrink
from espalier.pruning.structured.verify import randomise

SHAPE = (3, 8, 8)
WIDTHS = (8, 12, 16, 24)


class Drawn(nn.Module):
    """Layers one after another, each on what came before it: `(kind, width, kernel)`."""

    def __init__(self, stem: int, layers: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.kinds = [kind for kind, _, _ in layers]
        self.stem = nn.Conv2d(3, stem, 3, padding=1)
        self.layers = nn.ModuleList()
        width = stem
        for kind, out, kernel in layers:
            into, width = width, {"plain": out, "concat": width + out}.get(kind, width)
            groups = {"depthwise": into, "grouped": 4}.get(kind, 1)
            made = out if kind in ("plain", "concat") else into
            conv = nn.Conv2d(into, made, kernel, padding=kernel // 2, groups=groups, bias=kind == "plain")
            self.layers.append(nn.Sequential(conv, nn.BatchNorm2d(made), nn.SiLU()))
        self.head = Head(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for kind, layer in zip(self.kinds, self.layers, strict=True):
            y = layer(x)
            if kind == "residual":
                x = x + y
            elif kind == "gate":
                x = x * y.mean((2, 3), keepdim=True).sigmoid()
            else:
                x = torch.cat([x, y], dim=1) if kind == "concat" else y
        return self.head(x)


KINDS = ("plain", "residual", "concat", "depthwise", "grouped", "gate")


def whole_groups(layers: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Without a grouped convolution on what was put side by side: its groups mix layers, and stay dense one by one."""
    mixed = [any(kind == "concat" for kind, _, _ in layers[:index]) for index in range(len(layers))]
    return [
        ("plain" if late and kind == "grouped" else kind, *rest)
        for late, (kind, *rest) in zip(mixed, layers, strict=True)
    ]


LAYERS = st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(WIDTHS), st.sampled_from((1, 3))), max_size=5)


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(stem=st.sampled_from(WIDTHS), layers=LAYERS, share=st.floats(0.6, 0.9), round_to=st.sampled_from((1, 2, 4)))
def test_random_networks(stem: int, layers: list[tuple[str, int, int]], share: float, round_to: int) -> None:
    layers = whole_groups(layers)

    def make() -> nn.Module:
        model = Drawn(stem, layers).eval()
        randomise(model, torch.Generator().manual_seed(0))
        return model

    small = shrink(make(), SHAPE, Target("macs", share=share), round_to=round_to)
    assert small.share <= share
    assert small.difference < 1e-9
    assert [group.name for group in small.groups if group.dense_because] == ["head.2"]
    again = make()
    apply_structure(again, json.loads(json.dumps(small.structure)))
    again.load_state_dict(small.model.state_dict())
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(again(x), small.model(x), rtol=1e-4, atol=1e-5)
