"""What a user can get wrong about a supernet that learns: one line that names the choice, and exit code 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from nas_command import nas_here, run_is_rejected

from espalier.nas.checkpoint import load_state, save_state
from espalier.nas.cost.macs import macs_table
from espalier.nas.errors import Code
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


reject = partial(run_is_rejected, "tiny.yaml")


@pytest.mark.parametrize(
    ("damage", "key", "code"),
    [
        (
            lambda v: v["choices"]["edge_2_0"].update(nor_conv_1x1=float("nan")),
            "edge_2_0.nor_conv_1x1",
            "out_of_range",
        ),
        (lambda v: v["choices"]["edge_2_0"].pop("nor_conv_1x1"), "edge_2_0.nor_conv_1x1", "missing"),
        (lambda v: v["choices"].pop("edge_2_0"), "choices.edge_2_0", "missing"),
        (lambda v: v.update(space="0" * 12), "space", "mismatch"),
    ],
)
def test_a_table_of_costs_that_does_not_fit(damage: Callable[[dict[str, Any]], object], key: str, code: Code) -> None:
    macs_table(NasBench201((1, 8, 8), 10, channels=2, cells=1)).write(Path("costs.json"))
    table = json.loads(Path("costs.json").read_text())
    damage(table)
    Path("costs.json").write_text(json.dumps(table))
    strategy = "{name: proxyless, cost: costs.json, loss: target, target: 1.0e+6, every: 1, alpha_warmup: 0}"
    reject(f"supernet.strategy={strategy}", where=f"costs.json: {key}", code=code)
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("options", "key", "code", "fact"),
    [
        ("loss: target, target: 10", "target", "infeasible", "10"),
        ("loss: target, target: .nan", "target", "out_of_range", "finite"),
        ("loss: target", "target", "missing", "macs"),
        ("alpha_warmup: 1", "alpha_warmup", "conflict", "1"),
        ("every: 50, alpha_warmup: 0", "every", "out_of_range", "50"),
    ],
)
def test_options_of_proxyless_that_cannot_work(options: str, key: str, code: Code, fact: str) -> None:
    strategy = f"supernet.strategy={{name: proxyless, {options}}}"
    reject(strategy, where=f"supernet.strategy.{key}", code=code, says=fact)
    assert not Path("run").exists()


def test_a_space_without_a_decision() -> None:
    pytest.importorskip("nni")
    Path("one.py").write_text(ONE)
    changes = ("space={name: nni, model: 'one.py:One'}", "supernet.strategy=spos", "select=null", SEARCH)
    reject(*changes, where="supernet", code="too_few", says="'conv' offers only 0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="GPUs train it")
def test_a_space_too_narrow_to_train() -> None:
    narrow = "space={name: darts, variant: S2, channels: 2, cells: 3}"
    reject(narrow, where="space", code="unsupported", says="4 input channels")


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
    reject(where=str(state), code="unreadable", says="edited")
    state.write_bytes(own)
    shutil.copy(foreign_weights, weights)
    reject(where=str(weights), code="unreadable", says="edited")


def test_an_alpha_that_is_not_a_number(trained: Path) -> None:
    (path,) = trained.glob("*.pt")
    state = load_state(path)
    state["alphas"]["edge_3_1"][2] = torch.nan
    save_state(path, state)
    reject(where=str(path), code="unreadable", says="edited")
