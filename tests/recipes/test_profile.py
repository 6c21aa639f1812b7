"""`nas profile` on small files: what it prints, what it writes, what it rejects. No time is asserted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from nas_command import command, nas_here
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from espalier.export.timing import summarize
from espalier.nas.errors import Code, UserError
from espalier.recipes.commands.profile.text import percentiles
from user_errors import user_error

Capture = pytest.CaptureFixture[str]

QUICK = ("--threads", 1, "--sessions", 2, "--seconds", 0.02)


def network(path: Path, batch: int | str = "n") -> Path:
    """A convolution of 8x8 images, its module named as torch names it."""
    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "stem.conv.weight")
    nodes = [
        helper.make_node("Conv", ["image", "stem.conv.weight"], ["features"], name="conv"),
        helper.make_node("Relu", ["features"], ["output"], name="act"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 8, 8])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, 4, 6, 6])
    graph = helper.make_graph(nodes, "g", [image], [output], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return network(Path("m.onnx"))


def test_the_report_has_the_shape_of_optimum_benchmark(file: Path, capsys: Capture) -> None:
    found = json.loads(nas_here(capsys, "profile", file, *QUICK, "--batch", 2, "--json").out)
    statistics = {"unit", "count", "mean", "stdev", "p50", "p90", "p95", "p99", "values"}
    assert set(found["latency"]) == statistics | {"ci95"}
    assert set(found["load"]["latency"]) == set(found["first_run"]["latency"]) == statistics
    assert found["load"]["latency"]["count"] == found["first_run"]["latency"]["count"] == 2
    assert found["load"]["latency"]["p99"] is None  # of two sessions
    assert found["throughput"]["unit"] == "samples/s"
    assert found["throughput"]["value"] == pytest.approx(2000 / found["latency"]["mean"])
    assert (found["environment"]["batch"], found["environment"]["fresh_processes"]) == (2, True)
    assert found["energy"] is None or found["energy"]["unit"] == "J/run"


def test_it_says_it_in_words(file: Path, capsys: Capture) -> None:
    text = nas_here(capsys, "profile", file, *QUICK).out
    assert text.startswith("m.onnx: ")
    assert " 95 % interval [" in text
    assert "cold start: " in text
    assert "energy: " in text


def test_percentiles_are_reported_where_enough_runs_exceed_them() -> None:
    few, some, many = (summarize([[float(i) for i in range(runs)]] * 2) for runs in (10, 60, 1000))
    assert percentiles(few) == "p90, p95, p99 not reported: too few runs"
    assert percentiles(some).startswith("p90 ")
    assert percentiles(some).endswith(", p95, p99 not reported: too few runs")
    assert re.fullmatch(r"p90 [\d.e+]+ ms, p95 [\d.e+]+ ms, p99 [\d.e+]+ ms", percentiles(many))


def test_everything_at_once_and_on_a_page(file: Path, capsys: Capture) -> None:
    Image.fromarray(np.zeros((9, 7, 3), np.uint8)).save("image.png")
    extras = ("--operators", "--end-to-end", "image.png", "--concurrency", "1,2", "--batch", "1,3", "-o", "out")
    answer = nas_here(capsys, "profile", file, *QUICK, *extras, "--json")
    assert answer.code == 0, answer.err
    found: dict[str, Any] = json.loads(answer.out)
    assert json.loads(Path("out/profile.json").read_text()) == found
    page = Path("out/profile.html").read_text()
    assert page.count('data-plot="plot-') == 4
    kernels = found["operators"]["kernels"]
    assert sum(kernel["ms"] for kernel in kernels) == pytest.approx(found["latency"]["p50"])
    assert {kernel["module"] for kernel in kernels} <= {"stem.conv", "(runtime)"}
    assert [(load["batch"], load["callers"]) for load in found["concurrency"]] == [(1, 1), (1, 2), (3, 1), (3, 2)]
    assert sum(step["share"] for step in found["end_to_end"]["steps"]) == pytest.approx(1.0)
    answer = nas_here(capsys, "profile", file, *QUICK, *extras)
    assert "stem.conv: Conv + Relu" in answer.out
    assert "  inference " in answer.out


def test_a_batch_after_another_is_a_table(file: Path, capsys: Capture) -> None:
    found = json.loads(nas_here(capsys, "profile", file, *QUICK, "--batch", "1,2", "--json").out)
    assert [(load["batch"], load["callers"]) for load in found["concurrency"]] == [(1, 1), (2, 1)]


def test_files_are_timed_in_turns(file: Path, capsys: Capture) -> None:
    other = network(Path("other.onnx"))
    rounds = ("--threads", 1, "--sessions", 5, "--seconds", 0.05)
    found = json.loads(nas_here(capsys, "profile", file, other, *rounds, "--json").out)
    assert [one["file"] for one in found["files"]] == ["m.onnx", "other.onnx"]
    (compared,) = found["comparison"]
    assert (compared["file"], compared["baseline"], len(compared["ratios"])) == ("other.onnx", "m.onnx", 5)
    assert compared["ci95"][0] <= compared["ratio"] <= compared["ci95"][1]
    text = nas_here(capsys, "profile", file, other, *rounds).out
    assert "timed in turns, against m.onnx:\n  other.onnx: " in text


@pytest.mark.parametrize(
    ("options", "where", "code"),
    [
        ("--provider tensorrt", "--provider", None),
        ("--batch 0", "--batch", "out_of_range"),
        ("--batch 1,0", "--batch", "out_of_range"),
        ("--batch x", "--batch", "invalid"),
        ("--concurrency 0", "--concurrency", "out_of_range"),
        ("--concurrency two", "--concurrency", "invalid"),
        ("--depth 0", "--depth", "out_of_range"),
        ("--end-to-end missing", "missing", None),
        ("--end-to-end empty", "empty", None),
        ("--end-to-end damaged.png", "damaged.png", None),
        ("other.onnx --operators", "--operators", "conflict"),
        ("other.onnx", "--sessions", None),
        ("--device warp", "--device", "unknown"),
    ],
)
def test_what_it_rejects(options: str, where: str, code: Code | None, file: Path) -> None:
    network(Path("other.onnx"))
    Path("empty").mkdir()
    Path("damaged.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    with user_error(where, code):
        command("profile", file, *options.split(), *QUICK)


def test_a_fixed_batch_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="input 'image'") as caught:
        command("profile", network(tmp_path / "m.onnx", batch=4), *QUICK)
    assert caught.value.allowed == ("4",)


def test_help_shows_defaults_in_brackets(capsys: Capture) -> None:
    words = " ".join(nas_here(capsys, "profile", "--help").out.replace("│", " ").split())
    assert "Threads of ONNX Runtime [one per physical core]." in words
