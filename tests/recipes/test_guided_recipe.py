"""Guides, warm starts, filters, surrogates and replayed tables, as a recipe asks for them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from nas_command import command, nas_here, stage

from espalier.nas.architecture import Architecture
from espalier.nas.errors import Code
from espalier.nas.spaces.nasbench201 import EDGES, OPERATIONS, NasBench201, edge_name
from user_errors import user_error

Capture = pytest.CaptureFixture[str]

UNIFORM = 1 / 5
"""The mean accuracy of all cells: one of five operations is such a convolution."""
RECIPE = """\
name: replayed
data: {source: digits, limit: 200, split: {train: 0.5, architecture: 0.1, selection: 0.2, test: 0.2}}
space: {name: nasbench201, channels: 2, cells: 1}
search:
  objectives: [accuracy]
  sampler: random
  trials: 20
  replay: {table: table.csv, accuracy: accuracy, seconds: seconds}
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cells; the accuracy is the share of edges with a 3x3 convolution, and finding it out takes an hour."""
    path = tmp_path_factory.mktemp("table") / "table.csv"
    space = NasBench201((1, 8, 8), 10, channels=2, cells=1)
    lines = ["arch,accuracy,seconds"]
    for operations in itertools.product(OPERATIONS, repeat=len(EDGES)):
        names = (edge_name(*edge) for edge in EDGES)
        cell = space.format(Architecture(dict(zip(names, operations, strict=True))))
        lines.append(f"{cell},{operations.count('nor_conv_3x3') / 6},3600")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(autouse=True)
def here(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recipe and the table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "replayed.yaml").write_text(RECIPE)
    (tmp_path / "table.csv").symlink_to(table)
    return tmp_path


def searched(capsys: Capture, *overrides: str, folder: str = "run") -> Any:
    answer = nas_here(capsys, "run", "replayed.yaml", "-o", folder, "--json", *overrides)
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["networks"] == []
    return stage(Path(folder), "search")


def mean(search: Any, part: slice = slice(None)) -> float:
    values = [c["values"]["accuracy"] for c in search["candidates"] if c["status"] == "complete"][part]
    return sum(values) / len(values)


def test_a_table_stands_in_for_training(capsys: Capture, here: Path) -> None:
    search = searched(capsys)
    assert search["counts"]["complete"] == 20
    assert {candidate["seconds"] for candidate in search["candidates"]} == {3600.0}
    for candidate in search["candidates"]:
        assert candidate["values"]["accuracy"] == pytest.approx(candidate["notation"].count("nor_conv_3x3") / 6)
    page = (here / "run" / "report.html").read_text()
    assert "this recipe has no train stage" in page
    assert not (here / "run" / "stages" / "profile.json").exists()


def test_the_text_ends_with_the_report(capsys: Capture) -> None:
    answer = nas_here(capsys, "run", "replayed.yaml", "-o", "run")
    assert answer.code == 0
    assert answer.out.splitlines()[-1].startswith("report: ")


def test_a_guide_by_params_finds_convolutions_sooner(capsys: Capture) -> None:
    guided = searched(capsys, "search.trials=12", "search.guide={by: params, proposals: 4}")
    assert mean(guided) > UNIFORM + 0.1


def test_a_warm_start_comes_first(capsys: Capture) -> None:
    search = searched(capsys, "search.warm_start={by: params, candidates: 40, best: 4}")
    assert mean(search, slice(4)) > mean(search, slice(4, None)) + 0.15


def test_a_filter_rules_out_what_a_score_ranks_low(capsys: Capture) -> None:
    search = searched(capsys, "search.filters=[{by: params, keep: 0.3, among: 30}]", "search.trials=8")
    ruled_out = [c for c in search["candidates"] if c["status"] == "infeasible"]
    assert ruled_out
    assert all("among the best 30 % of 30 random architectures" in c["reason"] for c in ruled_out)
    assert all("accuracy" not in c["values"] for c in ruled_out)


@pytest.mark.parametrize("surrogate", ["{}", "{model: forest, encodings: [graph]}"])
def test_the_surrogate_learns_from_the_search(capsys: Capture, surrogate: str) -> None:
    search = searched(capsys, "search.sampler=surrogate", "search.trials=30", f"search.surrogate={surrogate}")
    assert mean(search, slice(20, None)) > UNIFORM + 0.15  # three standard deviations of ten random cells


def test_the_surrogate_learns_from_scores(capsys: Capture) -> None:
    surrogate = "{model: ridge, encodings: [], scores: [params], least_history: 8, proposals: 6}"
    search = searched(capsys, "search.sampler=surrogate", "search.trials=14", f"search.surrogate={surrogate}")
    assert mean(search, slice(8, None)) > UNIFORM + 0.15


def test_a_guided_search_is_taken_up(capsys: Capture) -> None:
    searched(
        capsys, "search.sampler=surrogate", "search.trials=15", "search.warm_start={by: macs, candidates: 10, best: 3}"
    )
    first = stage(Path("run"), "search")["candidates"]
    answer = nas_here(capsys, "run", "replayed.yaml", "-o", "run", "--resume", "search.trials=20")
    assert answer.code == 0, answer.err
    again = stage(Path("run"), "search")
    assert again["candidates"][: len(first)] == first
    assert again["counts"]["complete"] == 20


@pytest.mark.parametrize(
    ("override", "where", "code", "nearest"),
    [
        ("search.guide={by: parms}", "search.guide.by", "unknown", "params"),
        ("search.warm_start={by: inherited}", "search.warm_start.by", "unknown", None),
        ("search.warm_start={by: surrogate}", "search.warm_start.by", "unknown", None),
        ("search.filters=[{by: nawot}]", "search.filters.0.by", "unknown", "naswot"),
        ("search.filters=[{by: naswot, keep: 1.5}]", "search.filters.0.keep", "out_of_range", None),
        ("search.surrogate.model=gaussian", "search.surrogate.model", "unknown", None),
        ("search.surrogate.scores=[inherited]", "search.surrogate.scores", "unknown", None),
        ("search.surrogate.encodings=[paths]", "search.surrogate.encodings.0", "unknown", "path"),
        ("search.replay.accuracy=acuracy", "search.replay.table", "unknown", "accuracy"),
        ("search.replay.table=no.csv", "search.replay.table", "not_found", None),
        ("search.replay.tabel=x", "search.replay.tabel", "unknown", "table"),
        ("search.replay=null", "search.accuracy", "unknown", None),
    ],
)
def test_wrong_settings(override: str, where: str, code: Code, nearest: str | None) -> None:
    with user_error(where, code, nearest=nearest):
        command("run", "replayed.yaml", "-o", "run", override)
    assert not Path("run").exists()
