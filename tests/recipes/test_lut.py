"""`nas lut`, as a user calls it, on a device whose times are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml
from nas_command import command, nas_here, stage

from espalier.nas.errors import Code
from user_errors import user_error

sys.path.append(str(Path(__file__).resolve().parents[1] / "export"))
from device_by_layers import ScriptedDevice, without_exporter

__all__ = ["without_exporter"]
Capture = pytest.CaptureFixture[str]
VIT = "vit:patch=4,head_size=4,embeddings=[8,12],heads=[1,2],ratios=[1],depths=[1,2]"
IMAGES = ("--image-size", 8, "--channels", 1)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, without_exporter: None) -> None:
    monkeypatch.setattr(
        "espalier.recipes.commands.lut.command.open_device", lambda address, where: ScriptedDevice(identity=address)
    )


def test_blocks_are_listed_before_anything_is_measured(capsys: Capture) -> None:
    answer = nas_here(capsys, "lut", "build", "--space", VIT, *IMAGES, "--list")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[-1] == "10 blocks to measure"  # two ends of two sizes, 2 x 2 attentions, two hidden layers
    assert any(line.startswith("8/2 4x8 4x8") and line.endswith("2 slots") for line in lines)
    rows = json.loads(nas_here(capsys, "lut", "build", "--space", VIT, *IMAGES, "--list", "--json").out)
    assert {row["family"] for row in rows} == {"rest 0", "rest 1", "Block 1", "Block 2"}


@pytest.mark.usefixtures("device")
def test_a_table_is_built_checked_and_used(capsys: Capture, tmp_path: Path) -> None:
    table, calibrated = tmp_path / "table.json", tmp_path / "calibrated.json"
    answer = nas_here(capsys, "lut", "build", "--space", VIT, *IMAGES, "-o", table, "--threads", 1)
    assert answer.code == 0, answer.err
    assert "blocks: 10" in answer.out
    assert "verdicts: 10 stable" in answer.out
    check = ("lut", "check", table, "-n", 6, "--calibrate", 6)
    answer = nas_here(capsys, *check, "-o", calibrated)
    assert answer.code == 0, answer.err
    assert "median absolute error" in answer.out
    assert "0.0% [0.0%, 0.0%]" in answer.out
    assert json.loads(calibrated.read_text())["calibration"]["networks"] == 6
    found = json.loads(nas_here(capsys, *check, "--json").out)
    assert found["before"]["within_5"]["value"] == 1
    assert len(found["networks"]) == 6

    for option, where in (("--calibrate", "--calibrate"), ("--networks", "--networks")):  # before anything is measured
        with user_error(where, None):
            command(*check, option, 0, "--device", "replay:no.json")
    with user_error("--device", None, says="local"):
        command(*check, "--device", "ssh://board")
    assert nas_here(capsys, *check, "--device", "ssh://board", "--any-device").code == 0
    with user_error("--threads", None, says="threads 1"):
        command(*check, "--threads", 2)
    with user_error("table.json: space", None):
        command(*check, "--space", "vit", "--image-size", 64)


@pytest.mark.usefixtures("device")
def test_a_table_is_the_cost_of_a_strategy(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In milliseconds; and that of another device is refused unless the recipe says otherwise."""
    monkeypatch.setattr("espalier.recipes.engine.assemble.Assembly.open_device", lambda run: ScriptedDevice())
    recipe = tmp_path / "tiny.yaml"
    space = {"name": "vit", "patch": 4, "head_size": 4, "embeddings": [8, 12], "heads": [1, 2], "ratios": [1]}
    document = {
        "name": "tiny",
        "data": {
            "source": "digits",
            "limit": 200,
            "split": {"train": 0.4, "architecture": 0.2, "selection": 0.2, "test": 0.2},
        },
        "space": {**space, "depths": [1, 2]},
        "supernet": {"epochs": 1, "batch_size": 32},
        "select": {"methods": ["argmax"]},
        "train": None,
        "profile": {"threads": 1},
    }
    recipe.write_text(yaml.safe_dump(document))
    table = tmp_path / "table.json"
    answer = nas_here(capsys, "lut", "build", recipe, "-o", table, "--device", "a")  # on the threads of its profile
    assert answer.code == 0, answer.err
    strategy = {"name": "drnas", "cost_weight": 0.5, "cost": str(table)}
    for identity, options, refused in (("a", {}, False), ("b", {}, True), ("b", {"any_device": True}, False)):
        value = json.loads(table.read_text())
        value["device"]["id"] = identity
        table.write_text(json.dumps(value))
        document["supernet"] = {"epochs": 1, "batch_size": 32, "strategy": {**strategy, **options}}
        recipe.write_text(yaml.safe_dump(document))
        folder = tmp_path / f"run-{identity}-{len(options)}"
        if refused:
            with user_error("supernet.strategy.cost", "mismatch", says="device b"):
                command("run", recipe, "-o", folder)
        else:
            assert nas_here(capsys, "run", recipe, "-o", folder).code == 0
            assert stage(folder, "supernet")["parts"][0]["rows"][0]["expected_ms"] > 0

    document["profile"] = {"threads": 2}
    recipe.write_text(yaml.safe_dump(document))
    with user_error("supernet.strategy.cost", "mismatch", says="threads 1"):
        command("run", recipe, "-o", tmp_path / "threads")


@pytest.mark.parametrize(
    ("arguments", "where", "code"),
    [
        ("build -o t.json", "--space", "missing"),
        ("build --space vit", "--output", "missing"),
        ("build quickstart --space vit", "--space", "conflict"),
        ("build quickstart --classes 3", "--classes", "conflict"),
        ("build --space vit --classes 0", "--classes", "out_of_range"),
        ("build --space vti", "--space", "unknown"),
        ("build --space vit -o /dev/null", "--output", "not_writable"),
        ("build --space vit -o /dev/null/table.json", "--output", "not_writable"),
        ("check no.json", "no.json", "not_found"),
        ("check no.json -o /dev/null", "--output", "not_writable"),
    ],
)
def test_mistakes(arguments: str, where: str, code: Code) -> None:
    with user_error(where, code):
        command("lut", *arguments.split())
