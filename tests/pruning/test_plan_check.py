"""A plan with nonsense is refused by its key, before anything is trained."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from espalier.pruning.pruned_model import Plan, load_pruned, read_plan, save_pruned
from user_errors import user_error

NET = "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    plan = Plan(f"{tmp_path}/net.py:net", (3, 4, 4), ("a", "b", "c"), (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    save_pruned(tmp_path / "out", nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), plan)
    return tmp_path / "out"


def change(folder: Path, **values: Any) -> None:
    path = folder / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", [[1]]),
        ("mean", [0.5]),
        ("mean", [0.5, math.nan, 0.5]),
        ("mean", "0.5"),
        ("mean", None),
        ("std", [0.2, 0.0, 0.2]),
        ("std", [0.2, math.inf, 0.2]),
        ("std", [True, True, True]),
        ("classes", {"a": 1}),
        ("classes", ["a", "b", 3]),
        ("classes", ["a", "b", "a"]),
        ("image_shape", [3, 4]),
        ("image_shape", [3, 4, -4]),
        ("image_shape", [3, 4.5, 4]),
        ("image_shape", [3, 4, 10**12]),
        ("factory", 5),
        ("factory", ""),
        ("zeros", {"1.weight": -1}),
        ("zeros", {"1.weight": math.nan}),
        ("zeros", []),
        ("structure", None),
        ("structure", {"1": {"values": {"bias": [math.nan]}}}),
        ("groups", {}),
        ("groups", [3]),
        ("settings", "none"),
    ],
)
def test_nonsense_is_named_by_its_key(folder: Path, key: str, value: object) -> None:
    change(folder, **{key: value})
    with pytest.raises(Exception, match=f"plan.json: {key}") as caught:
        read_plan(folder)
    assert type(caught.value).__name__ == "UserError"


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c", "d"]])
def test_classes_are_those_of_the_network(folder: Path, classes: list[str]) -> None:
    assert len(list(load_pruned(folder).parameters())) == 2
    change(folder, classes=classes)
    with user_error("plan.json: classes", "mismatch", says=str(len(classes))):
        load_pruned(folder)


def test_images_that_the_network_does_not_take(folder: Path) -> None:
    change(folder, image_shape=[3, 5, 5])
    with user_error("plan.json: image_shape", "mismatch"):
        load_pruned(folder)
