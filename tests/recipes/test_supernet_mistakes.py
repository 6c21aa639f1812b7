"""What a user can get wrong about a supernet that learns: one line that names the choice, and exit code 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from nas_command import nas_here

from espalier.nas.checkpoint import load_state, save_state
from espalier.nas.cost.macs import macs_table
from espalier.nas.spaces.nasbench201 import NasBench201

Capture = pytest.CaptureFixture[str]

RECIPE = """\
name: tiny
data:
  source: digits
  limit: 400
  split: {train: 0.4, architecture: 0.2, selection: 0.2, test: 0.2}
space: {name: nasbench201, channels: 2, cells: 1}
supernet: {epochs: 1, batch_size: 64, strategy: darts}
select: {methods: [argmax]}
"""
ONE = """\
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from torch import nn

class One(ModelSpace):
    def __init__(self):
        super().__init__()
        self.conv = LayerChoice([nn.Conv2d(1, 4, 3)], label="conv")
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return tmp_path


def refusal(capsys: Capture, *arguments: object) -> str:
    """The one line that the run is refused with, without its `error: `."""
    answer = nas_here(capsys, "run", "tiny.yaml", "-o", "run", *arguments)
    assert answer.code == 2, answer
    *progress, line = answer.err.splitlines()
    assert not [said for said in progress if "error" in said or "Traceback" in said]
    return line.removeprefix("error: ")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda v: v["choices"]["edge_2_0"].update(nor_conv_1x1=float("nan")),
            "edge_2_0.nor_conv_1x1: is nan, must be",
        ),
        (lambda v: v["choices"]["edge_2_0"].pop("nor_conv_1x1"), "edge_2_0.nor_conv_1x1: the option has no entry"),
        (lambda v: v["choices"].pop("edge_2_0"), "choices.edge_2_0: the choice has no entry"),
        (lambda v: v.update(space="0" * 12), "space: the table is of a space of other sizes"),
    ],
)
def test_a_table_of_costs_that_does_not_fit(
    capsys: Capture, damage: Callable[[dict[str, Any]], object], message: str
) -> None:
    macs_table(NasBench201((1, 8, 8), 10, channels=2, cells=1)).write(Path("costs.json"))
    table = json.loads(Path("costs.json").read_text())
    damage(table)
    Path("costs.json").write_text(json.dumps(table))
    strategy = "{name: proxyless, cost: costs.json, loss: target, target: 1.0e+6, every: 1, alpha_warmup: 0}"
    line = refusal(capsys, f"supernet.strategy={strategy}")
    assert line.startswith(f"costs.json: {message}")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("options", "key", "fact"),
    [
        ("loss: target, target: 10", "target", "10"),
        ("loss: target, target: .nan", "target", "finite"),
        ("loss: target", "target", "macs"),
        ("alpha_warmup: 1", "alpha_warmup", "1"),
        ("every: 50, alpha_warmup: 0", "every", "50"),
    ],
)
def test_options_of_proxyless_that_cannot_work(capsys: Capture, options: str, key: str, fact: str) -> None:
    line = refusal(capsys, f"supernet.strategy={{name: proxyless, {options}}}")
    assert line.startswith(f"supernet.strategy.{key}: ")
    assert fact in line
    assert not Path("run").exists()


def test_a_space_without_a_decision(capsys: Capture) -> None:
    pytest.importorskip("nni")
    Path("one.py").write_text(ONE)
    line = refusal(capsys, "space={name: nni, model: 'one.py:One'}", "supernet.strategy=spos", "select=null", SEARCH)
    assert line == "supernet: the space is a single network, there is nothing to find; 'conv' offers only 0"


@pytest.mark.skipif(torch.cuda.is_available(), reason="GPUs train it")
def test_a_space_too_narrow_to_train(capsys: Capture) -> None:
    line = refusal(capsys, "space={name: darts, variant: S2, channels: 2, cells: 3}")
    assert line.startswith("space: ")
    assert "is a 1x1 convolution of stride 2 and 4 input channels" in line


SEARCH = "search={objectives: [accuracy], trials: 2}"


@pytest.fixture
def trained(capsys: Capture) -> Path:
    """The folder of what a finished run keeps of its supernet; the run has yet to select."""
    assert nas_here(capsys, "run", "tiny.yaml", "-o", "run").code == 0
    (Path("run") / "stages" / "select.json").unlink()
    return Path("run") / "checkpoints"


def test_a_checkpoint_of_another_space(capsys: Capture, trained: Path) -> None:
    other = "space={name: darts, variant: S2, channels: 4, cells: 3}"
    assert nas_here(capsys, "run", "tiny.yaml", "-o", "other", other).code == 0
    (weights,) = trained.glob("*.safetensors")
    (state,) = trained.glob("*.pt")
    (foreign_weights,) = Path("other/checkpoints").glob("*.safetensors")
    (foreign_state,) = Path("other/checkpoints").glob("*.pt")
    own = state.read_bytes()
    shutil.copy(foreign_state, state)
    assert "another space" in refusal(capsys, "--resume")
    state.write_bytes(own)
    shutil.copy(foreign_weights, weights)
    assert refusal(capsys, "--resume").startswith(f"{weights}: belongs to another network: ")


def test_an_alpha_that_is_no_number(capsys: Capture, trained: Path) -> None:
    (path,) = trained.glob("*.pt")
    state = load_state(path)
    state["alphas"]["edge_3_1"][2] = torch.nan
    save_state(path, state)
    assert "edge_3_1: alpha is [" in refusal(capsys, "--resume")
