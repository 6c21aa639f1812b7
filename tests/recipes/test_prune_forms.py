"""`nas prune` of networks as people have them: several outputs, own losses, other inputs, half precision, branches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from nas_command import nas_here, refusal

from espalier.pruning import load_pruned

Capture = pytest.CaptureFixture[str]
OWN = """
import torch
from torch import nn
from torch.nn import functional as F


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.hidden, self.out = nn.Embedding(32, 16), nn.Linear(16, 64), nn.Linear(64, 3)

    def forward(self, ids, mask):
        y = (self.words(ids) * mask.unsqueeze(-1)).mean(1)
        return {"logits": self.out(torch.relu(self.hidden(y))), "hidden": y}


def audio():
    layers = (nn.Conv1d(1, 32, 9, 4), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 4))
    return nn.Sequential(*layers).bfloat16()


class Aux(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.main, self.aux = nn.Linear(32, 10), nn.Linear(32, 10)

    def forward(self, x):
        y = self.body(x)
        return (self.main(y), self.aux(y)) if self.training else self.main(y)


class Dict(Aux):
    def forward(self, x):
        y = self.body(x)
        return {"aux": self.aux(y), "out": self.main(y)}


class Branch(Aux):
    def forward(self, x):
        y = self.body(x)
        return self.main(y) if bool(x.abs().max() > 20) else self.aux(y)


class Untrained(Aux):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class Fails(Aux):
    def forward(self, x):
        if self.training:
            raise KeyError("no loss here")
        return self.main(self.body(x))


def not_a_number():
    network = Dict()
    nn.init.constant_(network.main.bias, float("nan"))
    return network


def step(network, batch):
    x, y = batch
    outputs = network(x)
    if not isinstance(outputs, tuple):
        return F.cross_entropy(outputs, y)
    main, aux = outputs
    return F.cross_entropy(main, y) + 0.3 * F.cross_entropy(aux, y), main


def words(network, batch):
    return "a loss"


def vector(network, batch):
    return network(batch[0])[0]


def raises(network, batch):
    return 1 / 0
"""
QUICK = ("profile.seconds=0.05", "profile.threads=1")
TRAINED = ("train.epochs=1", "train.lr=0.05", "data.limit=300", *QUICK)
SMALLER = ("--method", "structured", "--target", "macs=0.6")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pruned(capsys: Capture, *arguments: object) -> dict[str, Any]:
    answer = nas_here(capsys, "prune", *arguments, "-o", "out", "--json")
    assert answer.code == 0, answer.err
    found: dict[str, Any] = json.loads(answer.out)
    return found


def test_named_inputs_without_data(capsys: Capture) -> None:
    inputs = ("--input", "ids:7:int64", "--input", "mask:7")
    found = pruned(capsys, "own.py:Words", *SMALLER, *inputs, "train.epochs=0", *QUICK)
    # hidden 16 -> 64 -> 3 with biases is 1283 accumulates; 0.6 of it leaves 32 of the 64 units.
    assert (found["before"]["macs"], found["after"]["macs"]) == (1283, 643)
    assert found["after"]["score"] is None
    graph = onnx.load("out/model.onnx").graph
    assert [value.name for value in graph.input] == ["ids", "mask"]
    assert [value.name for value in graph.output] == ["logits", "hidden"]
    network = load_pruned("out")
    assert network(torch.zeros(2, 7, dtype=torch.int64), torch.ones(2, 7))["logits"].shape == (2, 3)
    assert "ids:7:int64" in Path("out/README.md").read_text()


def test_audio_in_half_precision_is_converted(capsys: Capture) -> None:
    arguments = ("own.py:audio", "--target", "sparsity=0.5", "--input-shape", "1x400", "train.epochs=0", *QUICK)
    answer = nas_here(capsys, "prune", *arguments, "-o", "out")
    assert answer.code == 0, answer.err
    assert "bfloat16" in answer.err
    network = load_pruned("out")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    again = nas_here(capsys, "prune", "out", *SMALLER, "train.epochs=0", "--dry-run")  # it remembers its inputs
    assert again.code == 0, again.err
    zeros = sum(int((parameter == 0).sum()) for parameter in network.parameters())
    assert zeros == (9 * 32 + 32 * 4) // 2
    assert network(torch.randn(2, 1, 400)).shape == (2, 4)


def test_where_nothing_is_removed_the_file_is_the_same(capsys: Capture) -> None:
    """Training leaves weights in channels_last, which took extra operators: 87,129 bytes became 97,332."""
    arguments = ("own.py:Aux", "--method", "structured", "--target", "latency_ms=1000", "train.epochs=0", *QUICK)
    found = pruned(capsys, *arguments, "data.limit=300")
    assert found["before"]["macs"] == found["after"]["macs"]
    assert found["before"]["onnx_bytes"] == found["after"]["onnx_bytes"]
    assert found["before"]["onnx_bytes_gzip"] == pytest.approx(found["after"]["onnx_bytes_gzip"], abs=64)
    operators = {node.op_type for node in onnx.load("out/model.onnx").graph.node}
    assert not operators & {"Gather", "Range", "Shape", "Transpose"}


def test_auxiliary_heads_are_trained_and_shrink_along(capsys: Capture) -> None:
    found = pruned(capsys, "own.py:Aux", *SMALLER, *TRAINED, "train.step=own.py:step")
    # 1x3x3 convolution of 36 places, then 32 -> 10: the auxiliary head costs nothing where the network is deployed.
    whole = 32 * 36 * 10 + 32 * 10 + 10
    assert found["before"]["macs"] == whole
    assert found["after"]["macs"] <= 0.6 * whole
    network = load_pruned("out").train()
    kept = network.get_parameter("body.0.weight").shape[0]
    assert kept < 32
    assert [tuple(part.shape) for part in network(torch.randn(2, 1, 8, 8))] == [(2, 10), (2, 10)]
    assert network.get_parameter("aux.weight").shape == (10, kept)


@pytest.mark.slow
@pytest.mark.parametrize("outputs", ["out", "aux"])
def test_the_output_that_is_asked_for_is_trained(outputs: str, capsys: Capture) -> None:
    arguments = ("--target", "sparsity=0.5", "distill=0.5", f"outputs={outputs}", *TRAINED)
    found = pruned(capsys, "own.py:Dict", *arguments)
    assert found["after"]["score"]["count"] > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("own.py:Dict", "outputs=auxx"), "did you mean 'aux'"),
        (("own.py:Dict", "outputs=7"), "'7'"),
        (("own.py:Branch",), "own.py, line 42"),
        (("own.py:Untrained",), "train.epochs=0"),
        (("own.py:Fails",), "no loss here"),
        (("own.py:not_a_number",), "'main.bias' contains NaN"),
        (("own.py:Dict", "train.step=own.py:words"), "str"),
        (("own.py:Dict", "train.step=own.py:missing"), "missing"),
        (("own.py:Aux", "train.step=own.py:raises"), "ZeroDivisionError"),
        (("own.py:Aux", "train.step=nonsense"), "FILE.py:NAME"),
        (("own.py:Aux", "train.step=own.py:vector"), "(4, 10)"),
        (("own.py:audio", "--input-shape", "1x400"), "train.epochs"),
        (("own.py:audio", "--input-shape", "1x400", "train.epochs=0", "prune_epochs=1"), "prune_epochs"),
        (("own.py:audio", "--input-shape", "1x400", "train.epochs=0", "method.importance=taylor"), "magnitude"),
        (("own.py:audio", "--input-shape", "3x400", "train.epochs=0"), "input:3x400:float32"),
        (("own.py:Words", "--input", "ids:7:int64", "train.epochs=0"), "mask"),
        (("own.py:Words", "inputs=[ids]", "train.epochs=0"), "name:shape:dtype"),
    ],
)
def test_what_cannot_be_pruned_is_refused_before_anything_is_written(
    arguments: tuple[str, ...], says: str, folder: Path, capsys: Capture
) -> None:
    quick = TRAINED if "--input" not in arguments and "--input-shape" not in arguments else ()
    last = () if any(one.startswith("train.epochs") for one in arguments) else quick
    assert says in refusal(capsys, "prune", *arguments, *SMALLER, *(last or QUICK), "-o", "out")
    assert not (folder / "out").exists()


def test_methods_that_look_at_data_are_refused_without(capsys: Capture) -> None:
    given = ("--input-shape", "1x400", "--target", "sparsity=0.5", "train.epochs=0", "-o", "out")
    for method in ("rigl", "mfac", "issp"):
        assert "structured, magnitude" in refusal(capsys, "prune", "own.py:audio", "--method", method, *given)
    assert "obs" in refusal(capsys, "prune", "own.py:audio", "--allocation", "obs", *given)
