"""The command line from end to end, on the smallest recipe."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from nas_command import TINY, findings, log, nas_here, stage

from conftest import FinishedRun
from espalier.nas.data import Splits
from espalier.nas.run import RunFolder
from espalier.recipes.config.json_schema import json_schema
from espalier.recipes.config.loading import load_recipe, recipe_from
from espalier.recipes.config.recipe_library import FOLDER, SCHEMA, shipped_recipes
from espalier.recipes.engine.assemble import Assembly
from espalier.recipes.engine.pipeline import Pipeline
from espalier.recipes.engine.runner import run_recipe

Capture = pytest.CaptureFixture[str]

STAGES = ("data", "supernet", "search", "train", "export", "profile", "test")
NETWORK_FILES = {
    "architecture.json",
    "metrics.json",
    "model.safetensors",
    "model.onnx",
    "model.py",
    "README.md",
    "latency.json",
}


@pytest.fixture
def copied_run(finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run to go on with, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished_run.folder, tmp_path / "run"))


def run_here(recipe: Any, folder: Path) -> None:
    """All stages in this process, in silence."""
    run_recipe(recipe, folder)


def searched(recipe: Any, folder: Path) -> list[Any]:
    """The candidates of a recipe, its stages up to the search run in this process."""
    folder.mkdir()
    assembly = Assembly(recipe, RunFolder(folder))
    for name in ("data", "supernet", "search"):
        assembly.stages = assembly.stages.extended(name, Pipeline(assembly).run(name))
    assert assembly.stages.search is not None
    return [(c.id, c.status, c.values) for c in assembly.stages.search.candidates]


def test_standard_output_is_one_json_value(finished_run: FinishedRun) -> None:
    summary = json.loads(finished_run.answer.out)
    assert summary["run"] == "run"
    assert summary["search"] == {"complete": 12, "infeasible": 0, "failed": 0, "duplicates": 0}
    assert {network["origin"] for network in summary["networks"]} == {"front", "random"}
    for network in summary["networks"]:
        assert (finished_run.folder.parent / network["onnx"]).is_file()
        assert 0 <= network["test_accuracy"] <= 1
        assert network["latency_ms_ci95"][0] <= network["latency_ms"] <= network["latency_ms_ci95"][1]
    assert summary["test_images"] == 80


def test_the_chatter_goes_to_standard_error(finished_run: FinishedRun) -> None:
    for name in STAGES:
        assert f"\n{name}: done in " in finished_run.answer.err
    assert "Warning" not in finished_run.answer.err


def test_the_run_folder_is_complete(finished_run: FinishedRun) -> None:
    folder = finished_run.folder
    assert {path.name for path in folder.iterdir()} - {".lock"} == {
        *(
            "recipe.yaml",
            "overrides.json",
            "environment.json",
            "study.journal",
            "log.jsonl",
            "pareto.csv",
            "report.html",
        ),
        *("stages", "checkpoints", "architectures"),
    }
    assert {path.stem for path in (folder / "stages").iterdir()} == set(STAGES)
    assert sorted(path.name.split("-")[0] for path in (folder / "checkpoints").iterdir()) == ["strategy", "supernet"]
    networks = stage(folder, "train")["networks"]
    assert {path.name for path in (folder / "architectures").iterdir()} == {network["id"] for network in networks}
    for network in networks:
        files = {path.name for path in (folder / "architectures" / network["id"]).iterdir()}
        assert files == NETWORK_FILES
    rows = list(csv.DictReader((folder / "pareto.csv").open()))
    assert len(rows) >= len(stage(folder, "search")["front"])
    assert [row["epoch"] for row in log(folder, "supernet")] == list(range(1, 13))
    assert [row["stage"] for row in log(folder, "finished")] == list(STAGES)


def test_nothing_is_written_elsewhere(finished_run: FinishedRun) -> None:
    assert {path.name for path in finished_run.folder.parent.iterdir()} == {"tiny.yaml", "run"}
    # torch makes an empty folder for its compiler; timings lock a file of the user's.
    left = {path.name for path in finished_run.temporary.iterdir()}
    assert [name for name in left if not name.startswith(("torchinductor_", "espalier-lock-"))] == []
    assert list(finished_run.home.rglob("*")) == []


def test_the_resolved_recipe_means_the_same(finished_run: FinishedRun, capsys: Capture) -> None:
    def stages(*arguments: object) -> dict[str, str]:
        return dict(json.loads(nas_here(capsys, "run", *arguments, "--dry-run", "--json").out)["stages"])

    given, resolved = stages(finished_run.recipe), stages(finished_run.folder / "recipe.yaml")
    assert given == resolved == log(finished_run.folder, "start")[0]["keys"]
    assert list(given) == list(STAGES)
    other = stages(finished_run.recipe, "train.lr=0.05")
    assert [name for name in STAGES if other[name] != given[name]] == ["train", "export", "profile", "test"]


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    answer = nas_here(capsys, "run", "tiny.yaml", "-o", "run", "--dry-run")
    assert answer.code == 0
    assert [line.partition(":")[0] for line in answer.out.splitlines()][: len(STAGES)] == list(STAGES)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_finished_run_is_not_run_again(copied_run: Path, capsys: Capture) -> None:
    before = {path: path.read_bytes() for path in copied_run.glob("architectures/*/*")}
    answer = nas_here(capsys, "run", copied_run / "recipe.yaml", "-o", copied_run, "--resume")
    assert answer.code == 0
    for name in STAGES:
        assert f"\n{name}: done before\n" in answer.err
    assert {path: path.read_bytes() for path in copied_run.glob("architectures/*/*")} == before
    assert answer.out.startswith("search: 12 complete; ")
    assert f"report: {copied_run / 'report.html'}" in answer.out


def test_more_trials_are_the_same_study(
    copied_run: Path, capsys: Capture, finished_run: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enough(*_: object, **__: object) -> None:
        raise RuntimeError("enough")

    monkeypatch.setattr("espalier.recipes.engine.stages.train.run", enough)
    with pytest.raises(RuntimeError, match="enough"):
        nas_here(capsys, "run", copied_run / "recipe.yaml", "-o", copied_run, "--resume", "search.trials=15")
    earlier = stage(finished_run.folder, "search")["candidates"]
    candidates = stage(copied_run, "search")["candidates"]
    assert candidates[:12] == earlier
    assert len({candidate["id"] for candidate in candidates}) == 15
    assert len(log(copied_run, "supernet")) == 12


def test_the_seed_decides_what_is_found(finished_run: FinishedRun, tmp_path: Path) -> None:
    same = searched(load_recipe(str(finished_run.recipe)), tmp_path / "same")
    assert same == findings(finished_run.folder)["candidates"]
    other = searched(load_recipe(str(finished_run.recipe), ["seed=1"]), tmp_path / "other")
    assert [id_ for id_, *_ in other] != [id_ for id_, *_ in same]


def test_test_images_are_touched_only_at_the_end(
    finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(_: Splits) -> None:
        raise RuntimeError("touched")

    monkeypatch.setattr(Splits, "final_test", touched)
    with pytest.raises(RuntimeError, match="touched"):
        run_here(load_recipe(str(finished_run.recipe), ["train.random=0"]), tmp_path / "run")
    assert {path.stem for path in (tmp_path / "run" / "stages").iterdir()} == {*STAGES} - {"test"}
    # The same seed finds the same, in this process as in another.
    assert stage(tmp_path / "run", "search")["front"] == findings(finished_run.folder)["front"]
    candidates = [(c["id"], c["status"], c["values"]) for c in stage(tmp_path / "run", "search")["candidates"]]
    assert candidates == findings(finished_run.folder)["candidates"]
    (network,) = stage(tmp_path / "run", "train")["networks"]
    accuracies = [row["accuracy"] for row in network["rows"]]
    assert (network["id"], "front", accuracies) == findings(finished_run.folder)["networks"][0]


def test_a_report_of_an_unfinished_run(copied_run: Path, capsys: Capture) -> None:
    for name in ("export", "profile", "test"):
        (copied_run / "stages" / f"{name}.json").unlink()
    (copied_run / "report.html").unlink()
    answer = nas_here(capsys, "report", copied_run, "--json")
    assert answer.code == 0
    assert json.loads(answer.out) == {"report": str(copied_run / "report.html")}
    assert "<html" in (copied_run / "report.html").read_text()


def test_ls_names_everything(capsys: Capture) -> None:
    listing = json.loads(nas_here(capsys, "ls", "--json").out)
    assert "quickstart" in listing["recipes"]
    assert {"nasbench201", "darts", "mobilenet"} <= set(listing["spaces"])
    text = nas_here(capsys, "ls").out
    assert all(name in text for names in listing.values() for name in names)


def test_doctor_finds_this_machine_fit(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Half a minute of imports in fresh processes, which has a test of its own.
    monkeypatch.setattr("espalier.recipes.commands.doctor.import_failure", lambda *_: None)
    answer = nas_here(capsys, "doctor", "--json")
    assert answer.code == 0
    assert {finding["status"] for finding in json.loads(answer.out)} == {"ok"}
    assert nas_here(capsys, "doctor").code == 0


def test_a_copied_recipe_runs(tmp_path: Path, capsys: Capture) -> None:
    answer = nas_here(capsys, "recipes", "copy", "quickstart", tmp_path / "mine")
    assert answer.out.strip() == str(tmp_path / "mine" / "quickstart.yaml")
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"quickstart.yaml", SCHEMA}
    assert nas_here(capsys, "run", tmp_path / "mine" / "quickstart.yaml", "--dry-run").code == 0
    again = nas_here(capsys, "recipes", "copy", "quickstart", tmp_path / "mine")
    assert (again.code, "already there" in again.err) == (2, True)


def test_the_committed_schema_is_the_current_one(capsys: Capture) -> None:
    assert nas_here(capsys, "recipes", "schema").out.strip() == (FOLDER / SCHEMA).read_text().strip()


def test_shipped_recipes_fit_the_schema() -> None:
    schema = json.loads(json_schema())
    for path in shipped_recipes().values():
        document = yaml.safe_load(path.read_text())
        assert document.keys() <= schema["properties"].keys()
        assert set(schema["required"]) <= document.keys()
        assert recipe_from(document).name == path.stem


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.endswith("-nni") else ())
        for name in shipped_recipes()
        if name.startswith("cifar10-")
    ],
)
def test_the_cifar10_recipes_are_ready_to_run(
    name: str, shared_data: Path, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.endswith("-nni"):
        pytest.importorskip("nni", reason="NNI is not installed")
    monkeypatch.chdir(tmp_path)
    paths = [f"data.path={shared_data / 'cifar10'}", "data.limit=3000"]
    if name in ("cifar10-nasbench201", "cifar10-pada"):
        paths.append(f"rank.table={shared_data / 'nasbench201_cifar10.csv.gz'}")
    answer = nas_here(capsys, "run", name, *paths, "--dry-run")
    assert answer.code == 0, answer.err
    assert "test: " in answer.out


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name.startswith("digits-")])
def test_the_digits_recipes_are_ready_to_run(name: str, capsys: Capture) -> None:
    if name.endswith("-nni"):
        pytest.importorskip("nni", reason="NNI is not installed")
    answer = nas_here(capsys, "run", name, "--dry-run")
    assert answer.code == 0, answer.err
    assert "test: " in answer.out


def check_profile(answer_json: str) -> None:
    measured = json.loads(answer_json)
    assert set(measured) == {
        *("file", "latency", "verdict", "environment"),
        *("throughput", "load", "first_run", "energy"),
    }
    latency = measured["latency"]
    assert set(latency) == {*("unit", "count", "mean", "stdev", "p50", "p90", "p95", "p99", "ci95", "values")}
    assert latency["unit"] == "ms"
    assert latency["count"] == len(latency["values"]) > 0
    told = [latency[name] for name in ("p50", "p90", "p95", "p99") if latency[name] is not None]
    assert told[0] > 0
    assert told == sorted(told)
    assert told[-1] <= max(latency["values"])
    assert latency["ci95"][0] <= latency["ci95"][1]
    assert measured["verdict"] in ("stable", "noisy", "drifting", "throttled", "contended")
    assert measured["environment"]["threads"] == 1


def test_profile_times_any_file(finished_run: FinishedRun, capsys: Capture) -> None:
    file = next(finished_run.folder.glob("architectures/*/model.onnx"))
    options = ("--threads", 1, "--sessions", 2, "--seconds", 0.05)
    check_profile(nas_here(capsys, "profile", file, *options, "--batch", 3, "--json").out)
    text = nas_here(capsys, "profile", file, *options).out
    assert text.startswith(f"{file}: ")
    assert "95 % interval [" in text


def test_profile_times_real_files(shared_data: Path, capsys: Capture) -> None:
    for file in sorted((shared_data / "onnx").glob("*.onnx")):
        answer = nas_here(capsys, "profile", file, "--threads", 1, "--sessions", 2, "--seconds", 0.05, "--json")
        assert answer.code == 0, answer.err
        check_profile(answer.out)
