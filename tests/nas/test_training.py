from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from espalier.nas.checkpoint import load_state, load_weights, save_state, save_weights
from espalier.nas.task import Classification
from espalier.nas.training import Diverged, Training, TrainSettings, learning_rate_schedule, train
from user_errors import user_error

TASK = Classification(num_classes=3)


class Corners:
    """Eight batches of points whose class is the index of their largest coordinate, in an order drawn each epoch."""

    def __init__(self, generator: torch.Generator) -> None:
        fixed = torch.Generator().manual_seed(0)
        self.x = torch.randn(128, 3, generator=fixed)
        self.generator = generator

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in torch.randperm(128, generator=self.generator).split(16):
            yield self.x[indices], self.x[indices].argmax(1)


def make(**settings: Any) -> Training:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
    settings = TrainSettings(**{"epochs": 4, "lr": 0.2, **settings})
    return Training(model, settings, Corners(generator), task=TASK, generator=generator)


def test_it_learns() -> None:
    training = make(epochs=20)
    rows = train(training, evaluate=lambda model: TASK.evaluate(model, training.batches))
    assert [row["epoch"] for row in rows] == list(range(1, 21))
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[-1]["accuracy"] > 0.85
    assert rows[-1]["lr"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "settings", [{}, {"optimizer": "adamw", "lr": 0.01}, {"ema_decay": 0.9}, {"schedule": "cosine"}]
)
def test_resumed_it_gives_the_same_weights_to_the_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    whole = make(**settings)
    rows = train(whole)

    checkpoint = tmp_path / "checkpoint.pt"
    first = make(**settings)
    steps = iter(range(99))
    with pytest.raises(StopIteration):

        def stop_after_two(row: dict[str, float]) -> None:
            if next(steps) == 2:
                raise StopIteration

        train(first, checkpoint=checkpoint, on_epoch=stop_after_two)
    torch.manual_seed(123)
    second = make(**settings)
    resumed = train(second, checkpoint=checkpoint)
    assert [{k: r[k] for k in ("epoch", "loss", "lr")} for r in resumed] == [
        {k: r[k] for k in ("epoch", "loss", "lr")} for r in rows
    ]
    for name, tensor in whole.result.state_dict().items():
        assert torch.equal(tensor, second.result.state_dict()[name]), name


@pytest.mark.parametrize(("schedule", "middle"), [("linear", 0.5), ("cosine", 0.5), ("linear", 0.5), ("cosine", 0.5)])
def test_schedules_fall_to_zero(schedule: str, middle: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    settings = TrainSettings(epochs=10, schedule=schedule, lr=1.0)
    scheduler = learning_rate_schedule(optimizer, settings, steps_per_epoch=10)

    def lr_at(step: int) -> float:
        scheduler.step_update(step)
        return float(optimizer.param_groups[0]["lr"])

    assert lr_at(50) == pytest.approx(0.5)
    assert lr_at(100) == pytest.approx(0, abs=1e-12)
    expected = 0.75 if schedule == "linear" else (1 + math.cos(math.pi / 4)) / 2
    assert lr_at(25) == pytest.approx(expected)


def test_warm_up_rises_from_zero() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    settings = TrainSettings(epochs=10, warmup_epochs=2, lr=1.0)
    scheduler = learning_rate_schedule(optimizer, settings, steps_per_epoch=10)
    assert optimizer.param_groups[0]["lr"] == 0
    rates = []
    for step in range(1, 101):
        scheduler.step_update(step)
        rates.append(float(optimizer.param_groups[0]["lr"]))
    assert rates[9] == pytest.approx(0.5)
    assert max(rates) == rates[19] == 1.0
    assert rates[59] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValidationError, match="fewer than the 2 epochs"):
        TrainSettings(epochs=2, warmup_epochs=2)


def test_divergence_is_said() -> None:
    with pytest.raises(Diverged, match="in epoch"):
        train(make(epochs=30, lr=1e9, clip_grad_norm=None))


def test_the_average_is_the_result() -> None:
    training = make(ema_decay=0.9)
    train(training)
    assert training.result is not training.model
    assert not torch.equal(training.result[0].weight, training.model[0].weight)


def test_evaluate_counts_and_leaves_the_mode() -> None:
    model = nn.Identity().train()
    x = torch.eye(3)
    assert Classification(3).evaluate(model, [(x, torch.tensor([0, 1, 0]))]) == pytest.approx(2 / 3)
    assert model.training
    with pytest.raises(ValueError, match="no images"):
        Classification(3).evaluate(model, [])


def test_loss_takes_classes_and_distributions() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    hard = TASK.loss(logits, torch.tensor([0]))
    soft = TASK.loss(logits, torch.tensor([[1.0, 0.0, 0.0]]))
    assert hard == pytest.approx(float(soft))
    assert hard == pytest.approx(math.log(math.e**2 + 1 + math.e**-1) - 2)


def test_weights_go_out_and_in(tmp_path: Path) -> None:
    a, b = nn.Linear(2, 3), nn.Linear(2, 3)
    save_weights(tmp_path / "a.safetensors", a)
    load_weights(tmp_path / "a.safetensors", b)
    assert torch.equal(a.weight, b.weight)
    with user_error("a.safetensors", "mismatch", says="bias is (3,)"):
        load_weights(tmp_path / "a.safetensors", nn.Linear(2, 4))
    with user_error("a.safetensors", "mismatch", says="bias"):
        load_weights(tmp_path / "a.safetensors", nn.Linear(2, 3, bias=False))


def test_weights_of_other_kinds_come_in(tmp_path: Path) -> None:
    a, b = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = a.state_dict()
    np.savez(tmp_path / "a.npz", **{k: v.numpy() for k, v in state.items() if "num_batches" not in k})
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    for name in ("a.npz", "a.pth"):
        nn.init.zeros_(b[0].weight)
        load_weights(tmp_path / name, b)
        assert torch.equal(a[0].weight, b[0].weight)
    np.savez(tmp_path / "object.npz", a=np.array([{}], dtype=object))
    torch.save({"epoch": 3, "model": state}, tmp_path / "whole.pt")
    for name in ("object.npz", "whole.pt"):
        with user_error(name, "unreadable"):
            load_weights(tmp_path / name, b)
    with user_error("a.h5", "unknown", says=".safetensors, .npz"):
        load_weights(tmp_path / "a.h5", b)


@pytest.mark.parametrize("damage", ["cut", "noise", "missing", "empty"])
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    model = nn.Linear(20, 30)
    for name, save, load in (
        ("weights.safetensors", lambda p: save_weights(p, model), lambda p: load_weights(p, model)),
        ("state.pt", lambda p: save_state(p, {"a": torch.zeros(100)}), load_state),
    ):
        path = tmp_path / name
        save(path)
        content = path.read_bytes()
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes({"cut": content[: len(content) // 2], "noise": b"x" * len(content), "empty": b""}[damage])
        with user_error(str(path), "not_found" if damage == "missing" else "unreadable"):
            load(path)
