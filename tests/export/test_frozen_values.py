"""What a file cannot hold: branches on numbers, random draws, counters. It is refused, never frozen in silence."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from espalier.export.errors import ExportError
from espalier.export.onnx import export_onnx
from espalier.export.repeatable import Conversions
from espalier.nas.network_inputs import Input

SHAPE = (3, 8, 8)
Forward = Callable[["Two", Tensor], Tensor]


class Two(nn.Module):
    """Two layers, of which `forward` chooses."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.calls = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), 0
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x).mean((2, 3))


def counted(network: Two, x: Tensor) -> Tensor:
    network.calls += 1
    return network.a(x) if network.calls > 50 else network.b(x)


def drawn_from_its_own(network: Two, x: Tensor) -> Tensor:
    return network.a(x) * float(np.random.default_rng().uniform(1, 2))


FROZEN: dict[str, Forward] = {
    "bool": lambda n, x: n.a(x) if bool(x.abs().max() > 20) else n.b(x),
    "if": lambda n, x: n.a(x) if x.max() > 1000 else n.b(x),
    "item": lambda n, x: n.a(x) * x.abs().max().item(),
    "float": lambda n, x: n.a(x) * float(x.mean()),
    "int": lambda n, x: n.a(x) * int(x.abs().max()),
    "tolist": lambda n, x: n.a(x) * max(0.5, *x[0, 0, 0].tolist()),
    "numpy": lambda n, x: n.a(x) * float(x.numpy().clip(0, 1).mean()),
    "array": lambda n, x: n.a(x) * float(np.asarray(x).clip(0, 1).mean()),
    "allclose": lambda n, x: n.a(x) if torch.allclose(x[:, 0], x[:, 1]) else n.b(x),
    "equal": lambda n, x: n.a(x) if torch.equal(x[:, 0], x[:, 1]) else n.b(x),
    "in": lambda n, x: n.a(x) if 7.0 in x else n.b(x),
    "assert": lambda n, x: n.a(x) if not x.isnan().any() else n.b(x),
    "deep in it": lambda n, x: n.b(
        n.a(x).mean((1, 2, 3), keepdim=True).expand(-1, 3, 8, 8) * (1 if x.sum() > 0 else 2)
    ),
    "view": lambda n, x: n.a(x) if torch.zeros_like(x).copy_(x).max() > 1000 else n.b(x),
    "sizes": lambda n, x: n.a(x) if x[x > 20].shape[0] > 0 else n.b(x),
    "batch": lambda n, x: n.a(x) if x.shape[0] > 8 else n.b(x),
    "batch by its length": lambda n, x: n.a(x) if len(x) > 8 else n.b(x),
    "torch draws": lambda n, x: n.a(x) + torch.rand(()),
    "dropout": lambda n, x: nn.functional.dropout(n.a(x), 1e-6),
    "random": lambda n, x: n.a(x) if random.random() < 1e-6 else n.b(x),
    "numpy.random": lambda n, x: n.a(x) if np.random.rand() < 1e-6 else n.b(x),
    "own generator": drawn_from_its_own,
    "counter": counted,
}


@pytest.mark.parametrize("name", FROZEN)
def test_a_trace_freezes_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        export_onnx(Two(FROZEN[name]), SHAPE, tmp_path / "m.onnx", exporter="torchscript")
    assert caught.value.code in ("failed", "unsupported")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["bool", "batch"])
def test_the_other_exporter_freezes_nothing(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError):
        export_onnx(Two(FROZEN[name]), SHAPE, tmp_path / "m.onnx")


FINE: dict[str, Forward] = {
    "sizes": lambda n, x: n.a(x) if x.shape[1] == 3 and x.shape[2] > 4 else n.b(x),
    "mode": lambda n, x: n.a(x) if n.training else n.b(x),
    "own weights": lambda n, x: n.a(x) * float(n.b.weight.abs().max()),
    "channels last": lambda n, x: n.a(x.contiguous(memory_format=torch.channels_last)),
    "where": lambda n, x: torch.where(x.mean() > 0, n.a(x), n.b(x)),
    "constants": lambda n, x: n.a(x) * torch.tensor([2.0, 3.0]).tolist()[1],
    "calls a print": lambda n, x: n.a(x) if f"{x.mean()}" else n.b(x),
}


@pytest.mark.parametrize("name", FINE)
def test_what_does_not_depend_on_numbers_is_exported(name: str, tmp_path: Path) -> None:
    exported = export_onnx(Two(FINE[name]), SHAPE, tmp_path / "m.onnx", exporter="torchscript")
    assert exported.parity.max_abs_error <= exported.parity.tolerance


def test_conversions_are_told_with_their_line() -> None:
    x = torch.randn(2, *SHAPE)
    with torch.no_grad(), Conversions((x,)) as watch:
        Two(FROZEN["bool"])(x)
    assert len(watch.found) == 1
    assert watch.found[0].startswith("test_frozen_values.py, line ")


def test_parity_looks_at_the_images_of_the_user(tmp_path: Path) -> None:
    """A scripted branch is kept; one that a tracer froze is found by an image that takes the other way."""
    network = Two(lambda n, x: torch.where((x.amax((1, 2, 3)) > 500).view(-1, 1, 1, 1), n.a(x), n.b(x)))
    images = torch.zeros(2, *SHAPE)
    images[0, 0, 0, 0] = 600
    export_onnx(network, SHAPE, tmp_path / "m.onnx", exporter="torchscript", images=images)
    other = Two(lambda n, x: n.b(x))  # what a file with the frozen branch computes
    export_onnx(other, SHAPE, tmp_path / "other.onnx", exporter="torchscript")
    from espalier.export.parity import check_parity

    check_parity(network, SHAPE, tmp_path / "other.onnx")
    with pytest.raises(ExportError, match="differ"):
        check_parity(network, SHAPE, tmp_path / "other.onnx", images=images)


def test_weights_that_are_not_finite_are_named(tmp_path: Path) -> None:
    for value in (torch.nan, torch.inf):
        network = Two(lambda n, x: n.a(x) + n.b(x))
        with torch.no_grad():
            network.b.weight[0, 0, 0, 0] = value
        with pytest.raises(ExportError, match=r"b\.weight") as caught:
            export_onnx(network, SHAPE, tmp_path / "m.onnx")
        assert caught.value.code == "invalid"


def test_a_mask_of_minus_infinity_is_no_damage(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))

        def forward(self, x: Tensor) -> Tensor:
            return (self.linear(x) @ x.transpose(1, 2) + self.mask).softmax(-1)

    export_onnx(Masked(), (4, 4), tmp_path / "m.onnx", exporter="torchscript")


def test_outputs_that_are_not_finite_name_the_layer(tmp_path: Path) -> None:
    network = Two(lambda n, x: n.b(n.a(x).abs().neg().sqrt()[:, :3]))
    with pytest.raises(ExportError, match=r"not finite.*b \(Conv2d\)|not finite.*the network"):
        export_onnx(network, SHAPE, tmp_path / "m.onnx", exporter="torchscript")


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.linear = nn.Embedding(50, 8), nn.Linear(8, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        hidden = self.words(ids) * mask.unsqueeze(-1)
        return {"logits": self.linear(hidden.mean(1)), "hidden": hidden}


@pytest.mark.parametrize("exporter", ["torchscript", pytest.param("dynamo", marks=pytest.mark.slow)])
def test_several_named_inputs_and_outputs(exporter: str, tmp_path: Path) -> None:
    inputs = (Input("mask", (6,)), Input("ids", (6,), "int64"))  # passed by name, whatever their order
    found = export_onnx(TwoInputs(), inputs, tmp_path / "m.onnx", exporter=exporter)  # type: ignore[arg-type]
    graph = onnx.load(found.path).graph
    assert [value.name for value in graph.input] == ["mask", "ids"]
    assert [value.name for value in graph.output] == ["logits", "hidden"]
    assert all(value.type.tensor_type.shape.dim[0].dim_param for value in [*graph.input, *graph.output])


def test_audio_and_tuples(tmp_path: Path) -> None:
    class Audio(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv1d(1, 4, 9, stride=4)

        def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
            y = self.conv(x)
            return y.mean(-1), [None, y]

    graph = onnx.load(export_onnx(Audio(), (1, 400), tmp_path / "m.onnx", exporter="torchscript").path).graph
    assert [value.name for value in graph.output] == ["output_0", "output_1.1"]
