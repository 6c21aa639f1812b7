"""Command lines with values that nothing can be done with: one line on standard error, exit code 2."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from nas_command import command, refusal

from espalier.nas.errors import Code
from user_errors import user_error

Capture = pytest.CaptureFixture[str]
LONG = "x" * 5000


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("line", "where", "code"),
    [
        ("profile x.onnx --seconds inf", "--seconds", "out_of_range"),
        ("profile x.onnx --seconds nan", "--seconds", "out_of_range"),
        ("profile x.onnx --sessions 100000000000000000000000", "--sessions", "out_of_range"),
        ("profile x.onnx --batch 99999999999999999999", "--batch", "out_of_range"),
        ("profile x.onnx --threads 100000", "--threads", "out_of_range"),
        ("profile x.onnx --concurrency 1,100000000", "--concurrency", "out_of_range"),
        ("profile x.onnx --depth 1000000", "--depth", "out_of_range"),
        ("quantize x.onnx -o q --max-drop nan", "--max-drop", "out_of_range"),
        ("quantize x.onnx -o q --size 1000000", "--size", "out_of_range"),
        ("quantize x.onnx -o q --seed 99999999999999999999", "--seed", "out_of_range"),
        ("score timm:resnet18 --repeats 100000000000000000000000", "--repeats", "out_of_range"),
        ("score timm:resnet18 --batch-size 999999999", "--batch-size", "out_of_range"),
        ("score timm:resnet18 --limit-seconds inf", "--limit-seconds", "out_of_range"),
        ("rank --table t.csv --target a --samples 100000000000", "--samples", "out_of_range"),
        ("prune timm:resnet18 --pattern 2:0 --dry-run", "--pattern", "invalid"),
        ("prune timm:resnet18 --pattern 0:0 --dry-run", "--pattern", "invalid"),
        ("prune timm:resnet18 --target sparsity=.5 --size 1000000 --dry-run", "--size", "out_of_range"),
        ("prune timm:resnet18 --target sparsity=.5 train.epochs=1e9 --dry-run", "train.epochs", "out_of_range"),
        ("prune timm:resnet18 --target sparsity=.5 train.optimizer=fusedadam --dry-run", "train.optimizer", "invalid"),
        ("lut build --space darts:cells=100000 --list", "space.cells", "out_of_range"),
        ("lut build --space darts:cells=1,cells=2 --list", "space.cells", "conflict"),
        ("lut build --space darts --image-size 100000 --list", "--image-size", "out_of_range"),
        ("lut build --space darts --classes 100000000000 --list", "--classes", "out_of_range"),
        ("lut check t.json --calibrate 100000000", "--calibrate", "out_of_range"),
    ],
)
def test_options_have_limits(line: str, where: str, code: Code) -> None:
    with user_error(where, code):
        command(*shlex.split(line))


@pytest.mark.parametrize(
    "line",
    [
        "run LONG",
        "run quickstart LONG",
        "run quickstart LONG=3",
        "run quickstart -o LONG",
        "run quickstart data={source: folder, path: LONG, split: {train: 1}} --dry-run",
        "prune LONG --target sparsity=0.5",
        "prune LONG.py:f --target sparsity=0.5",
        "prune timm:LONG --target sparsity=0.5 --dry-run",
        "prune timm:resnet18 --target sparsity=0.5 --data LONG --dry-run",
        "quantize LONG -o q",
        "profile LONG",
        "rank LONG",
        "rank --table LONG --target a",
        "score LONG",
        "score timm:resnet18 --data LONG",
        "score timm:resnet18 --scores LONG",
        "lut check LONG",
        "lut build --space LONG --list",
        "report LONG",
        "devices LONG",
        "devices ssh://LONG",
        "recipes copy LONG",
        "recipes copy quickstart LONG",
        "LONG",
        "run --LONG",
    ],
)
def test_long_texts_are_refused_in_a_short_line(capsys: Capture, line: str) -> None:
    assert len(refusal(capsys, *(part.replace("LONG", LONG) for part in shlex.split(line)))) < 2000


def test_names_that_are_no_utf_8(capsys: Capture) -> None:
    line = refusal(capsys, "run", "caf\udce9.yaml")
    assert "caf" in line
    line.encode()
