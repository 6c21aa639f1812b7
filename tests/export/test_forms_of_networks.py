"""Networks as people write them: exported right, or refused with the reason in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from espalier.export.errors import ExportError
from espalier.export.network import export_network
from espalier.export.onnx import export_onnx
from espalier.nas.copying import copied, unwrapped
from espalier.nas.errors import UserError
from user_errors import user_error

IMAGE, TOKENS = (3, 8, 8), (6, 16)
END = (nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Does(nn.Module):
    """Layers, and a function of them and the input."""

    def __init__(self, forward: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x: Tensor) -> Any:
        return self._forward(self, x)


def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 8, 3)


EXPORTED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "grouped": (lambda: nn.Sequential(conv(), nn.Conv2d(8, 8, 3, groups=4), *END), IMAGE),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(3, 8, 3, 2), nn.PixelShuffle(2)), IMAGE),
    "norms": (lambda: nn.Sequential(conv(), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8), nn.PReLU(), *END), IMAGE),
    "resized": (lambda: nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), conv()), IMAGE),
    "old weight norm": (lambda: nn.Sequential(nn.utils.weight_norm(conv()), *END), IMAGE),
    "weight norm": (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(conv()), *END), IMAGE),
    "data parallel": (lambda: nn.DataParallel(nn.Sequential(conv(), *END)), IMAGE),
    "compiled": (lambda: torch.compile(nn.Sequential(conv(), *END)), IMAGE),  # type: ignore[dict-item, return-value]
    "scripted": (lambda: torch.jit.script(nn.Sequential(conv(), *END)), IMAGE),
    "channels last": (lambda: nn.Sequential(conv(), *END).to(memory_format=torch.channels_last), IMAGE),  # type: ignore[call-overload]
    "frozen": (lambda: nn.Sequential(conv(), *END).requires_grad_(requires_grad=False), IMAGE),
    "float64": (lambda: nn.Sequential(conv(), *END).double(), IMAGE),
    "bfloat16": (lambda: nn.Sequential(conv(), *END).bfloat16(), IMAGE),
    "chunks": (lambda: Does(lambda n, x: torch.cat(n.c(x).chunk(2, dim=-3)[::-1], 1).mean((2, 3)), c=conv()), IMAGE),
    "glu": (lambda: Does(lambda n, x: nn.functional.glu(n.c(x), -3), c=conv()), IMAGE),
    "shuffle": (lambda: nn.Sequential(conv(), nn.Unflatten(1, (2, 4)), nn.Flatten(2), nn.Linear(144, 2)), IMAGE),
    "no weights": (lambda: nn.Sequential(*END), IMAGE),
    "nothing": (nn.Sequential, IMAGE),
    "recurrent": (lambda: Does(lambda n, x: n.r(x)[0][:, -1], r=nn.LSTM(16, 8, batch_first=True)), TOKENS),
    "tokens": (lambda: nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 4)), TOKENS),
    "own attention": (
        lambda: Does(
            lambda n, x: (n.q(x) @ n.k(x).transpose(1, 2)).softmax(-1) @ x, q=nn.Linear(16, 8), k=nn.Linear(16, 8)
        ),
        TOKENS,
    ),
    "tuple": (lambda: Does(lambda n, x: (n.c(x), x.mean((1, 2, 3))), c=conv()), IMAGE),
    "mapping": (lambda: Does(lambda n, x: {"out": n.c(x), "none": None, "more": [x]}, c=conv()), IMAGE),
    "one number each": (lambda: Does(lambda n, x: x.sum((1, 2, 3))), IMAGE),
    "mask": (lambda: Does(lambda n, x: (x > 0).float() * x), IMAGE),
    "whole numbers": (lambda: Does(lambda n, x: n.c(x).mean((2, 3)).argmax(1), c=conv()), IMAGE),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # old weight norm and scripts are deprecated, and used
@pytest.mark.parametrize("name", EXPORTED)
def test_exported_right(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, shape = EXPORTED[name]
    network = make().eval()
    found = export_onnx(network, shape, tmp_path / "m.onnx", exporter="torchscript")
    x = torch.randn(5, *shape)
    session = onnxruntime.InferenceSession(str(found.path), providers=["CPUExecutionProvider"])
    got = session.run(None, {"input": x.numpy()})
    plain = copied(network).float()
    with torch.no_grad():
        wanted = plain(x)
    flat = [wanted] if isinstance(wanted, Tensor) else [*wanted.values()] if isinstance(wanted, dict) else wanted
    first = next(one for one in flat if isinstance(one, Tensor))
    np.testing.assert_allclose(got[0], first.numpy(), rtol=1e-3, atol=1e-4)
    channels_last = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    np.testing.assert_allclose(session.run(None, {"input": channels_last.numpy()})[0], got[0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("attention", lambda: Does(lambda n, x: n.a(x, x, x)[0], a=nn.MultiheadAttention(16, 4, batch_first=True))),
        ("encoder", lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)),
        ("spectral norm", lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(16, 4))),
        (
            "cond",
            lambda: Does(lambda n, x: torch.cond(x.sum() > 0, n.a, n.b, (x,)), a=nn.Linear(16, 3), b=nn.Linear(16, 3)),
        ),
        ("item", lambda: Does(lambda n, x: n.a(x) * x.abs().max().item(), a=nn.Linear(16, 3))),
    ],
)
def test_exported_right_by_the_newer_exporter(name: str, make: Callable[[], nn.Module], tmp_path: Path) -> None:
    torch.manual_seed(0)
    assert export_onnx(make().eval(), TOKENS, tmp_path / "m.onnx").exporter == "dynamo", name


def without_copy() -> nn.Module:
    network = nn.Sequential(conv())
    network.held = iter(())  # type: ignore[assignment]
    network.lock = __import__("threading").Lock()
    return network


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lazy": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), "1.weight"),
    "cannot be copied": (without_copy, "cannot be copied"),
    "text": (lambda: Does(lambda n, x: {"out": x, "name": "text"}), "str"),
    "nothing returned": (lambda: Does(lambda n, x: None), "NoneType"),
    "other images": (lambda: nn.Sequential(nn.Conv2d(4, 8, 3)), "channels"),
    "raises": (lambda: Does(lambda n, x: 1 / 0), "ZeroDivisionError"),
    "no operator": (lambda: nn.Sequential(nn.AdaptiveMaxPool2d(3)), "AdaptiveMaxPool|adaptive"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_reason(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make, says = REFUSED[name]
    with pytest.raises(UserError, match=says) as caught:
        export_onnx(make().eval(), IMAGE, tmp_path / "m.onnx", exporter="torchscript")
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 1000
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_wrappers_are_taken_off() -> None:
    network = nn.Sequential(conv())
    assert unwrapped(torch.compile(nn.DataParallel(network))) is network  # type: ignore[arg-type]
    assert unwrapped(network) is network


def test_the_python_interface_takes_inputs(tmp_path: Path) -> None:
    network = Does(lambda n, x: n.words(x).mean(1), words=nn.Embedding(9, 4))
    found = export_network(network, tmp_path / "m.onnx", inputs=["x:5:int64"], exporter="torchscript")
    assert [value.name for value in onnx.load(found.path).graph.input] == ["x"]
    for both in ({}, {"input_shape": (5,), "inputs": ["x:5:int64"]}):
        with user_error("input_shape", "missing"):
            export_network(network, tmp_path / "n.onnx", **both)  # type: ignore[arg-type]
    with pytest.raises(ExportError):
        export_network(network, tmp_path / "n.onnx", input_shape=(5,), exporter="torchscript")  # floats are no indices
