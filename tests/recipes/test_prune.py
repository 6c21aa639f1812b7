"""`nas prune`, from the command line to a folder that any process loads."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nas_command import command, environment, leftovers, log, nas_here, refusal, start
from torch import nn

from conftest import FinishedRun
from espalier.nas.checkpoint import read_weights, save_weights
from espalier.nas.cost.count import count
from espalier.nas.errors import Code
from espalier.nas.models import network_factory
from espalier.pruning import load_pruned
from espalier.pruning.allocation.macs import layer_macs
from espalier.pruning.pruned_model import Plan
from espalier.pruning.weights import prunable_weights
from espalier.recipes.config.registry import PRUNERS
from user_errors import user_error

Capture = pytest.CaptureFixture[str]

OWN = """\
from torch import nn

def conv(inputs, outputs, stride=1):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )

class small(nn.Sequential):  # a class of the file's own: each execution of the file makes another
    def __init__(self):
        super().__init__(
            conv(1, 16), conv(16, 32, 2), conv(32, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
        )

def wrong():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))
"""
PRUNABLE = 9 * (16 + 16 * 32 + 32 * 32) + 320
QUICK = ("train.epochs=1", "train.lr=0.05", "profile.seconds=0.05", "profile.threads=1", "data.limit=400")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a user's file of a network."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def pruned(capsys: Capture, *arguments: object, folder: str = "out") -> dict[str, Any]:
    """What a pruning that ends well prints as JSON."""
    answer = nas_here(capsys, "prune", "own.py:small", "--json", "-o", folder, *QUICK, *arguments)
    assert answer.code == 0, answer.err
    result: dict[str, Any] = json.loads(answer.out)
    return result


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out export and timing, which take seconds: the result is counted on the plain networks."""

    def counted(folder: Path, plan: Plan, *, dense: nn.Module, pruned: nn.Module, **_: object) -> SimpleNamespace:
        def facts(network: nn.Module) -> dict[str, int]:
            cost = count(network, plan.image_shape)
            weights = prunable_weights(network)
            macs = layer_macs(network, plan.image_shape)
            zeros = {name: int((weight == 0).sum()) for name, weight in weights.items()}
            by_zero = sum(macs[name] * n for name, n in zeros.items())
            return {**vars(cost), "zeros": sum(zeros.values()), "macs_without_zeros": cost.macs - round(by_zero)}

        found = {"before": facts(dense), "after": facts(pruned)}
        return SimpleNamespace(to_dict=lambda: found)

    monkeypatch.setattr("espalier.recipes.commands.prune.command.measure_outcome", counted)


def test_the_folder_is_whole_and_any_process_loads_it(capsys: Capture, tmp_path: Path) -> None:
    result = pruned(capsys, "--method", "issp", "--target", "sparsity=0.9", "prune_epochs=1", "distill=0.5")
    out = tmp_path / "out"
    zeros = -(-9 * PRUNABLE // 10)
    assert result["after"]["zeros"] == zeros
    assert result["before"]["zeros"] == 0
    assert result["after"]["macs"] == result["before"]["macs"]
    assert result["after"]["weights_bytes_gzip"] < 0.5 * result["before"]["weights_bytes_gzip"]
    assert sum(json.loads((out / "plan.json").read_text())["zeros"].values()) == zeros
    assert not leftovers(out)
    (tmp_path / "own.py").unlink()  # the folder has a copy
    script = "import sys; from espalier.pruning import load_pruned; import torch; x = torch.ones(2, 1, 8, 8); "
    script += "print([round(v, 4) for v in load_pruned(sys.argv[1])(x)[0].tolist()])"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    fresh = subprocess.run(
        [sys.executable, "-c", script, str(out)],
        cwd=elsewhere,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    import onnxruntime

    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    expected = session.run(["logits"], {"input": np.ones((2, 1, 8, 8), dtype=np.float32)})[0][0]
    assert json.loads(fresh.stdout) == pytest.approx(expected.tolist(), abs=2e-4)
    card = (out / "README.md").read_text()
    assert f"{zeros:,} of {PRUNABLE:,} (90.0" in card
    assert "This sparsity does not run faster" in card or "of the dense network's time" in card


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("method", sorted(PRUNERS))
def test_every_method_reaches_the_exact_number_of_zeros(capsys: Capture, tmp_path: Path, method: str) -> None:
    fewer = ("method.rows=16", "method.recomputations=2") if method == "mfac" else ()
    result = pruned(capsys, "--method", method, "--target", "sparsity=0.75", "prune_epochs=4", *fewer)
    assert result["after"]["zeros"] == 3 * PRUNABLE // 4
    assert result["after"]["params"] == result["before"]["params"]


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("arguments", "zeros"),
    [
        (("--pattern", "2:4", "--exclude", "0.0", "--exclude", "5"), (PRUNABLE - 144 - 320) // 2),
        (("--target", "sparsity=0.5", "--include", "2.*"), 9 * 1024 // 2),
        (("--target", "params=0.5"), -(-(PRUNABLE + 10 + 2 * 80) // 2)),
    ],
)
def test_patterns_and_names(capsys: Capture, arguments: tuple[str, ...], zeros: int) -> None:
    assert pruned(capsys, *arguments)["after"]["zeros"] == zeros


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("allocation", ["lgreco", "obs"])
def test_macs_without_those_by_zero_keep_the_target(capsys: Capture, allocation: str) -> None:
    result = pruned(capsys, "--target", "macs=0.3", "--allocation", allocation)
    share = result["after"]["macs_without_zeros"] / result["before"]["macs"]
    assert 0.25 < share <= 0.3


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(("target", "key"), [("macs=0.5", "macs"), ("params=0.4", "params")])
def test_channels_go_until_the_target_is_kept(capsys: Capture, tmp_path: Path, target: str, key: str) -> None:
    result = pruned(capsys, "--method", "structured", "--target", target)
    assert result["after"][key] / result["before"][key] <= float(target.partition("=")[2])
    assert result["after"]["params"] < result["before"]["params"]
    network = load_pruned(tmp_path / "out")
    assert sum(p.numel() for p in network.parameters()) == result["after"]["params"]


@pytest.mark.usefixtures("unmeasured")
def test_a_pruned_folder_is_pruned_again(capsys: Capture, tmp_path: Path) -> None:
    first = pruned(capsys, "--method", "structured", "--target", "macs=0.5")
    answer = nas_here(capsys, "prune", "out", "--target", "sparsity=0.5", "-o", "again", "--json", *QUICK)
    assert answer.code == 0, answer.err
    second = json.loads(answer.out)
    assert second["before"]["params"] == second["after"]["params"] == first["after"]["params"]
    assert second["after"]["zeros"] > 0
    assert load_pruned(tmp_path / "again")(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


@pytest.mark.usefixtures("unmeasured")
def test_the_network_of_a_run_is_pruned(capsys: Capture, finished_run: FinishedRun, tmp_path: Path) -> None:
    network = next((finished_run.folder / "architectures").glob("*/model.onnx")).parent
    answer = nas_here(capsys, "prune", network, "--target", "sparsity=0.5", "-o", "out", "--json", *QUICK)
    assert answer.code == 0, answer.err
    assert "fresh weights" not in answer.err
    assert load_pruned(tmp_path / "out")(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("stem", ["export", "copy"])
def test_a_file_of_any_name_is_pruned_and_scored(capsys: Capture, tmp_path: Path, stem: str) -> None:
    (tmp_path / "own.py").rename(tmp_path / f"{stem}.py")
    options = ("--method", "magnitude", "--target", "sparsity=0.5", "--json", "-o", "out", *QUICK)
    answer = nas_here(capsys, "prune", f"{stem}.py:small", *options)
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["after"]["zeros"] == PRUNABLE / 2
    answer = nas_here(capsys, "score", f"{stem}.py:small", "--scores", "naswot", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)[0]["scores"]["naswot"]["status"] == "ok"


def test_given_weights_are_taken(capsys: Capture, tmp_path: Path) -> None:
    network = network_factory("own.py:small", image_shape=(1, 8, 8), classes=10)()
    save_weights(tmp_path / "w.safetensors", network)
    pruned(capsys, "--target", "sparsity=0.5", "--weights", "w.safetensors", "train.epochs=0", "recalibrate=0")
    before, after = read_weights(tmp_path / "w.safetensors"), read_weights(tmp_path / "out" / "model.safetensors")
    kept = after["1.0.weight"] != 0
    assert 0 < int(kept.sum()) < kept.numel()
    assert torch.equal(after["1.0.weight"][kept], before["1.0.weight"][kept])
    assert torch.equal(after["0.1.bias"], before["0.1.bias"])


def test_a_dry_run_lists_and_writes_nothing(capsys: Capture, tmp_path: Path) -> None:
    answer = nas_here(capsys, "prune", "own.py:small", "--target", "sparsity=0.9", "--dry-run")
    assert answer.code == 0, answer.err
    assert f"of {PRUNABLE:,} weights would be zero" in answer.out
    groups = nas_here(capsys, "prune", "own.py:small", "--target", "macs=0.5", "--method", "structured", "--dry-run")
    assert groups.code == 0, groups.err
    assert "3 of 4 groups can shrink, target macs=0.5" in groups.out
    assert {path.name for path in tmp_path.iterdir()} <= {"own.py", "__pycache__"}


@pytest.mark.usefixtures("unmeasured")
def test_a_killed_pruning_goes_on_and_ends_as_if_it_had_not_been(capsys: Capture, tmp_path: Path) -> None:
    arguments = ("--method", "issp", "--target", "sparsity=0.9", *QUICK, "train.epochs=3", "prune_epochs=3")
    process = start("prune", "own.py:small", "-o", "out", *arguments, cwd=tmp_path)
    deadline = time.monotonic() + 200
    while len(log(tmp_path / "out", "pruning")) < 1:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -9
    with user_error("train.lr", "conflict", says="0.2"):
        command("prune", "own.py:small", "-o", "out", "--resume", *arguments, "train.lr=0.2")
    assert nas_here(capsys, "prune", "own.py:small", "-o", "out", "--json", "--resume", *arguments).code == 0
    assert nas_here(capsys, "prune", "own.py:small", "-o", "whole", "--json", *arguments).code == 0
    resumed, whole = (read_weights(tmp_path / name / "model.safetensors") for name in ("out", "whole"))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    ("arguments", "where", "code", "says"),
    [
        ("", "--target", "invalid", "sparsity=0.9"),
        ("--target sparsty=0.9", "--target", "invalid", "sparsity="),
        ("--target sparsity=1.5", "--target", "invalid", "1.5"),
        ("--target macs", "--target", "invalid", "macs"),
        ("--target latency_ms=3", "--target", "invalid", "structured"),
        ("--target sparsity=0.5 --method structured", "--target", "invalid", "macs="),
        ("--target sparsity=0.5 --method isp", "--method", "unknown", "did you mean 'issp'?"),
        ("--target sparsity=0.5 --method issp method.alpa=1", "method.alpa", "unknown", "alpha"),
        ("--target sparsity=0.5 --method issp method.alpha=2", "method.alpha", "out_of_range", "2"),
        ("--target sparsity=0.5 --pattern 2:4", "--target", "invalid", "pattern"),
        ("--pattern 4:4", "--pattern", None, "4:4"),
        ("--pattern 2:4", "0.0.weight", None, "1 inputs"),
        ("--pattern half", "--pattern", "invalid", "half"),
        ("--target sparsity=0.5 --include layer9.*", "--include", None, "layer9.*"),
        ("--target sparsity=0.5 --exclude *", "--include", None, ""),
        ("--target params=0.001", "--target", "infeasible", "params=0.001"),
        ("--target macs=0.5 --allocation erk", "--allocation", "conflict", "lgreco"),
        ("--target macs=0.000001 --method structured", "--target", None, ""),
        ("--target sparsity=0.5 --weights absent.npz", "absent.npz", None, ""),
        ("--target sparsity=0.5 --pretrained", "own.py:small", None, "timm"),
        ("--target sparsity=0.5 --data absent", "--data", "not_found", "absent"),
        ("--target sparsity=0.5 data.mean=[0.5]", "--data", "invalid", "std"),
        ("--target sparsity=0.5 train.warmup_epochs=3", "train", "invalid", "warmup_epochs"),
    ],
)
def test_what_a_user_gets_wrong(tmp_path: Path, arguments: str, where: str, code: Code | None, says: str) -> None:
    with user_error(where, code, says=says):
        command("prune", "own.py:small", "-o", "out", *QUICK, *arguments.split())
    assert not list((tmp_path / "out").glob("model.*"))


@pytest.mark.parametrize(
    ("model", "where", "code", "says"),
    [
        ("own.py:wrong", "MODEL", "mismatch", "7 outputs"),
        ("timm:resnet81", "timm:resnet81", None, "resnet18"),
        ("resnet18", "MODEL", "invalid", "timm:NAME"),
        (".", "MODEL", "invalid", "timm:NAME"),
        ("edsr:blocks=2", "--scale", "missing", "edsr"),
    ],
)
def test_what_is_not_a_network(model: str, where: str, code: Code | None, says: str) -> None:
    with user_error(where, code, says=says):
        command("prune", model, "-o", "out", "--target", "sparsity=0.5", *QUICK)


@pytest.mark.usefixtures("unmeasured")
def test_a_damaged_plan_is_named(capsys: Capture, tmp_path: Path) -> None:
    pruned(capsys, "--target", "sparsity=0.5", "train.epochs=0")
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    for change, line in (
        ({"format": 9}, "plan of format 1"),
        ({"zeroes": {}}, "zeroes: is not a key of a plan"),
        ({"zeros": {"1.0.weight": 4608}}, "1.0.weight has fewer zeros than the 4608"),
    ):
        (tmp_path / "out" / "plan.json").write_text(json.dumps({**plan, **change}))
        assert line in refusal(capsys, "prune", "out", "--target", "sparsity=0.6", "-o", "again", *QUICK)


def test_an_output_that_is_taken_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    arguments = ("prune", "own.py:small", "-o", "out", "--target", "sparsity=0.5", *QUICK)
    with user_error("out", "conflict"):
        command(*arguments)
    with user_error("out", "not_found"):
        command(*arguments, "--resume")


def test_divergence_is_the_learning_rates() -> None:
    with user_error("train.lr", "failed"):
        command(
            "prune",
            "own.py:small",
            "-o",
            "out",
            "--target",
            "sparsity=0.5",
            *QUICK,
            "train.lr=1e9",
            "train.clip_grad_norm=null",
            "train.epochs=3",
        )
