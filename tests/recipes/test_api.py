"""The Python API: what `import espalier` offers, its defaults, and every block of docs/api.md."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import espalier
from conftest import FinishedRun
from espalier.recipes.cli.lut import lut_build
from espalier.recipes.cli.profile import profile
from espalier.recipes.cli.prune import prune
from espalier.recipes.cli.quantize import quantize
from espalier.recipes.cli.rank import rank
from espalier.recipes.cli.score import score
from user_errors import user_error

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


def test_the_import_loads_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "pydantic", "typer", "rich", "optuna", "onnx")
    script = f"import espalier, sys; dir(espalier); print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"


def test_every_name_is_there() -> None:
    assert set(espalier.__all__) <= set(dir(espalier))
    for name in espalier.__all__:
        assert getattr(espalier, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'scoer'"):
        espalier.scoer  # noqa: B018


def test_export_is_a_package_that_can_be_called(tmp_path: Path) -> None:
    import espalier.export.onnx as module

    assert espalier.export.onnx is module  # type: ignore[attr-defined]
    with user_error("absent.py", None):
        espalier.export("absent.py:network", tmp_path / "x.onnx", input_shape=(3, 8, 8))


@pytest.mark.parametrize(
    ("function", "command", "of_the_command"),
    [
        (espalier.score, score, set()),
        (espalier.rank, rank, set()),
        (espalier.profile, profile, {"files", "dim"}),
        (espalier.prune, prune, {"dry_run", "input_shape"}),
        (espalier.quantize, quantize, {"input_shape", "dim"}),
        (espalier.build_latency_table, lut_build, {"list_blocks"}),
    ],
)
def test_defaults_are_those_of_the_command_line(
    function: Callable[..., Any], command: Callable[..., None], of_the_command: set[str]
) -> None:
    ours, theirs = (
        {name: parameter.default for name, parameter in inspect.signature(one).parameters.items()}
        for one in (function, command)
    )
    assert theirs.keys() - ours.keys() == {"as_json"} | of_the_command
    for name, default in theirs.items():
        if name not in ours or ours[name] is inspect.Parameter.empty:
            continue
        written = ",".join(map(str, ours[name])) if isinstance(ours[name], tuple) else ours[name]
        assert default == written or (default is None and not written) or default == str(written), name


@pytest.mark.parametrize(
    "block",
    [pytest.param(block, marks=pytest.mark.slow if "espalier.run(" in block else ()) for block in BLOCKS],
    ids=range(len(BLOCKS)),
)
def test_the_page_runs(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, str(PAGE), "exec"), {"__name__": "page"})
    printed = capsys.readouterr().out
    for expected in re.findall(r"print\(.*\)  # (.*)\n", block):
        assert expected in printed


def test_the_twelve_lines() -> None:
    (block,) = (block for block in BLOCKS if "DARTS" in block)
    assert len([line for line in block.splitlines() if line]) == 12


def test_a_finished_run_is_loaded(finished_run: FinishedRun) -> None:
    run = espalier.load_run(finished_run.folder)
    assert run.report.is_file()
    assert {candidate.id for candidate in run.front} <= {candidate.id for candidate in run.candidates}
    latencies = [network.latency_ms for network in run.networks]
    assert latencies == sorted(latencies)
    for network in run.networks:
        assert network.onnx.is_file()
        assert sum(p.numel() for p in network.load().parameters()) == network.params
        assert 0 <= network.accuracy <= 1
    pytest.importorskip("pandas")
    assert list(run.candidates_frame()["id"]) == [candidate.id for candidate in run.candidates]
    assert list(run.networks_frame()["params"]) == [network.params for network in run.networks]


def test_what_is_not_a_run_or_a_recipe(tmp_path: Path) -> None:
    with user_error("recipe.yaml", "not_found"):
        espalier.load_run(tmp_path)
    with user_error("search.trails", "unknown", nearest="trials"):
        espalier.run("quickstart", tmp_path / "run", **{"search.trails": 3})
    with user_error("data", None):
        espalier.run({"name": "mine"}, tmp_path / "run")
