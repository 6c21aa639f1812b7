"""A pruning goes on only with what it was begun with: content decides, not paths."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nas_command import command, nas_here

from espalier.nas.checkpoint import save_weights
from espalier.nas.models import network_factory
from user_errors import user_error

NET = """\
from torch import nn

from blocks import block

def small():
    return nn.Sequential(block(1, 8), block(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
"""
BLOCKS = """\
from torch import nn

def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())
"""
ARGUMENTS = (
    *("--target", "sparsity=0.5", "--data", "images.npz", "--weights", "w.safetensors"),
    *("train.epochs=2", "train.batch_size=16", "recalibrate=0", "profile.device=replay:board.json"),
)
MEASURE = "espalier.recipes.commands.prune.command.measure_outcome"


def write_images(pixels: np.ndarray) -> None:
    np.savez("images.npz", images=pixels, labels=np.arange(len(pixels)) % 3)


def write_weights(seed: int) -> None:
    torch.manual_seed(seed)
    save_weights(Path("w.safetensors"), network_factory("own/net.py:small", image_shape=(1, 8, 8), classes=3)())


def board(ms: float) -> None:
    Path("board.json").write_text(json.dumps({"call_ms": 1.0, "operators_ms": {"*": ms}}))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own").mkdir()
    Path("own/net.py").write_text(NET)
    Path("own/blocks.py").write_text(BLOCKS)
    write_images(np.random.default_rng(0).integers(0, 256, (90, 8, 8), np.uint8))
    write_weights(0)
    board(0.5)


def prune(*arguments: str, model: str = "own/net.py:small") -> None:
    command("prune", model, "-o", "out", *ARGUMENTS, *arguments)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pruning in `out` that ended after its training."""

    def stop(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(MEASURE, stop)
        with pytest.raises(ZeroDivisionError):
            prune()


def edit(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


def one_pixel() -> None:
    pixels = np.load("images.npz")["images"].copy()
    pixels[3, 2, 2] ^= 1
    write_images(pixels)


CHANGES: dict[str, Callable[[], None]] = {
    "w.safetensors": lambda: write_weights(1),
    "own/net.py": lambda: edit("own/net.py", "AvgPool", "MaxPool"),
    "own/blocks.py": lambda: edit("own/blocks.py", "ReLU", "Tanh"),
    "images.npz": one_pixel,
    "board.json": lambda: board(0.7),
}


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize("changed", CHANGES)
def test_a_file_whose_content_changed_is_named(changed: str) -> None:
    CHANGES[changed]()
    with user_error(changed, "mismatch"):
        prune("--resume")


@pytest.mark.usefixtures("interrupted")
def test_files_that_moved_are_the_same() -> None:
    Path("own").rename("moved")
    for name in ("w.safetensors", "images.npz", "board.json"):
        shutil.move(name, f"moved/{name}")
    moved = ("--data", "moved/images.npz", "--weights", "moved/w.safetensors", "profile.device=replay:moved/board.json")
    Path("out").rename("elsewhere")
    command("prune", "moved/net.py:small", "-o", "elsewhere", *ARGUMENTS, *moved, "--resume")
    assert Path("elsewhere/result.json").is_file()
    assert not Path("elsewhere/checkpoints").exists()


@pytest.mark.usefixtures("interrupted")
def test_a_damaged_checkpoint_or_request_is_named() -> None:
    with user_error("--seed", "conflict"):
        prune("--resume", "--seed", "3")
    with user_error("out", "conflict"):
        prune()
    request, checkpoint = Path("out/prune.json"), Path("out/checkpoints/fine-tuning.pt")
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:-1] + b"x")
    with user_error("fine-tuning.pt", "unreadable"):
        prune("--resume")
    checkpoint.write_bytes(content)
    edit("out/prune.json", '"seed": 0', '"seed": 1')
    with user_error("prune.json", "unreadable"):
        prune("--resume")
    request.write_text("null")
    with user_error("prune.json", "unreadable"):
        prune("--resume")


def test_a_finished_pruning_is_taken_as_it_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    prune()
    answer = nas_here(capsys, "prune", "own/net.py:small", "-o", "out", *ARGUMENTS, "--resume", "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["target"] == "sparsity=0.5"
    for name in ("result.json", "plan.json", "model.onnx", "model.safetensors", "network.py"):
        content = Path("out", name).read_bytes()
        Path("out", name).write_bytes(content[:-1] + b"x")
        with user_error(f"out/{name}", "unreadable"):
            prune("--resume")
        Path("out", name).write_bytes(content)


def test_a_mistake_leaves_the_folder_free(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("espalier.recipes.commands.prune.sparse.pattern", fail)
        with pytest.raises(ZeroDivisionError):
            prune()
    assert {path.name for path in Path("out").iterdir()} <= {".lock"}
    prune("--target", "sparsity=0.25")


def test_a_training_that_diverged_leaves_the_folder_free() -> None:
    with user_error("train.lr", "failed"):
        prune("train.epochs=30", "train.lr=1.0e+9", "train.clip_grad_norm=null")
    assert {path.name for path in Path("out").iterdir()} <= {".lock"}
