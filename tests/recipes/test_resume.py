"""What a run goes on with, and what it refuses: content decides, not paths and names."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from nas_command import command, nas_here, stage

from conftest import FinishedRun
from espalier.nas.search.storage import study_in_use
from espalier.recipes.commands.run import dry_run_summary
from espalier.recipes.config.loading import load_recipe
from user_errors import user_error

Capture = pytest.CaptureFixture[str]

CHEAP = """\
name: cheap
data:
  source: digits
  limit: 100
  split: {train: 0.5, architecture: 0.1, selection: 0.2, test: 0.2}
space: {name: nasbench201, channels: 2, cells: 1}
search: {objectives: [macs, params], accuracy: params, sampler: random, trials: 6}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("cheap.yaml").write_text(CHEAP)
    return tmp_path


def trials(folder: Path) -> list[tuple[int, str]]:
    return [(one["trial"], one["id"]) for one in stage(folder, "search")["candidates"]]


def test_a_renamed_or_copied_folder_goes_on_with_its_study() -> None:
    command("run", "cheap.yaml", "-o", "one")
    before = trials(Path("one"))
    shutil.copytree("one", "copy")
    Path("one").rename("moved")
    for folder in ("copy", "moved"):
        command("run", "cheap.yaml", "-o", folder, "--resume", "search.trials=7")
        after = trials(Path(folder))
        assert after[:6] == before
        assert [number for number, _ in after] == list(range(7))  # one new trial


def test_runs_with_one_database_have_a_study_each() -> None:
    storage = "search.storage=sqlite:///studies.db"
    for folder in ("a/run", "b/run"):
        command("run", "cheap.yaml", "-o", folder, storage)
        assert len(trials(Path(folder))) == 6
    Path("a/run").rename("moved")
    command("run", "cheap.yaml", "-o", "moved", "--resume", "search.trials=7")
    assert [number for number, _ in trials(Path("moved"))] == list(range(7))
    with sqlite3.connect("studies.db") as database:
        assert database.execute("select count(*) from studies").fetchone() == (2,)


def test_a_study_in_use_is_busy() -> None:
    command("run", "cheap.yaml", "-o", "run", "search.storage=sqlite:///studies.db")
    with sqlite3.connect("studies.db") as database:
        (name,) = database.execute("select study_name from studies").fetchone()
    shutil.copytree("run", "copy")
    with study_in_use("sqlite:///studies.db", name), user_error("search.storage", "busy"):
        command("run", "cheap.yaml", "-o", "copy", "--resume", "search.trials=7")
    command("run", "cheap.yaml", "-o", "copy", "--resume", "search.trials=7")
    assert [number for number, _ in trials(Path("copy"))] == list(range(7))


def test_impossible_values_of_a_database_are_refused() -> None:
    command("run", "cheap.yaml", "-o", "run", "search.storage=sqlite:///studies.db")
    with sqlite3.connect("studies.db") as database:
        database.execute("update trial_values set value = 1.5 where trial_id = 3")
    with user_error("search.storage", "unreadable", says="trial 2"):
        command("run", "cheap.yaml", "-o", "run", "--resume", "search.trials=7")


def test_salvage_continues_with_what_is_whole(capsys: Capture) -> None:
    command("run", "cheap.yaml", "-o", "run")
    before, path = trials(Path("run")), Path("run/study.journal")
    lines = path.read_bytes().splitlines(keepends=True)
    fourth = next(i for i, line in enumerate(lines) if before[3][1].encode() in line)
    path.write_bytes(b"".join([*lines[:fourth], lines[fourth].replace(b"complete", b"failed"), *lines[fourth + 1 :]]))
    with user_error("study.journal", "unreadable", says=f"line {fourth + 1} "):
        command("run", "cheap.yaml", "-o", "run", "--resume", "search.trials=7")
    with user_error("--salvage", "conflict"):
        command("run", "cheap.yaml", "-o", "run", "--salvage")
    answer = nas_here(capsys, "run", "cheap.yaml", "-o", "run", "--resume", "--salvage", "search.trials=7")
    assert answer.code == 0
    assert f"line {fourth + 1} " in answer.err
    assert [one for _, one in trials(Path("run"))[:3]] == [one for _, one in before[:3]]
    assert len(trials(Path("run"))) == 7


def test_salvage_runs_damaged_stages_again(finished_run: FinishedRun, capsys: Capture) -> None:
    shutil.copytree(finished_run.folder, "run")
    record = Path("run/stages/test.json")
    before = record.read_bytes()
    record.write_bytes(before[:-10])
    answer = nas_here(capsys, "run", finished_run.recipe, "-o", "run", "--resume", "--salvage")
    assert answer.code == 0
    done = [line.partition(":")[0] for line in answer.err.splitlines() if line.endswith(": done before")]
    assert done == ["data", "supernet", "search", "train", "export", "profile"]
    assert record.read_bytes() == before


def test_a_run_that_failed_at_once_leaves_its_folder_free() -> None:
    with user_error("search.storage", None):
        command("run", "cheap.yaml", "-o", "run", "search.storage=sqlite:////no/such/folder/x.db")
    command("run", "cheap.yaml", "-o", "run")
    assert len(trials(Path("run"))) == 6


MOVABLE = """\
import colours
from espalier.nas.spaces.nasbench201 import NasBench201
class Mine(NasBench201):
    pass
"""


def keys(*overrides: str) -> dict[str, str]:
    return dict(dry_run_summary(load_recipe("cheap.yaml", overrides))["stages"])


@pytest.mark.parametrize("changed", ["space.py", "colours.py"])
def test_an_edited_file_of_an_own_space_makes_its_stages_new(changed: str) -> None:
    Path("own").mkdir()
    Path("own/space.py").write_text(MOVABLE)
    Path("own/colours.py").write_text("RED = 1\n")
    space = "space={name: own/space.py:Mine, channels: 2, cells: 1}"
    before = keys(space)
    Path("own").rename("moved")
    assert keys(space.replace("own/", "moved/")) == before
    Path("moved", changed).write_text(Path("moved", changed).read_text() + "# edited\n")
    after = keys(space.replace("own/", "moved/"))
    assert after["data"] == before["data"]
    assert after["search"] != before["search"]


def test_images_count_by_their_content() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    np.savez("a.npz", images=pixels, labels=np.arange(60) % 3)
    data = "data={source: npz, path: %s, split: {train: 0.5, architecture: 0, selection: 0.25, test: 0.25}}"
    before = keys(data % "a.npz")
    Path("a.npz").rename("b.npz")
    assert keys(data % "b.npz") == before
    pixels[7, 3, 3] ^= 1
    np.savez("b.npz", images=pixels, labels=np.arange(60) % 3)
    assert not set(keys(data % "b.npz").values()) & set(before.values())
