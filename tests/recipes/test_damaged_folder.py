"""Any file of a run folder may be damaged in any way: the command is right, or refuses in one line that names it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nas_command import command, findings, nas_here

from conftest import FinishedRun
from espalier.nas.errors import UserError
from espalier.recipes.commands.run import load_run

Capture = pytest.CaptureFixture[str]


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "one byte": lambda path: path.write_bytes(path.read_bytes()[:-2] + b"#\n"),
    "null": lambda path: path.write_text("null"),
    "a list": lambda path: path.write_text("[1]"),
    "a mapping": lambda path: path.write_text("{}"),
    "a number": lambda path: path.write_text("1e999"),
    "nested": lambda path: path.write_text("[" * 100_000),
    "binary": lambda path: path.write_bytes(b"\x00\xff\xfe" * 20),
    "a folder": lambda path: replaced(path, Path.mkdir),
    "a dangling link": lambda path: replaced(path, lambda at: at.symlink_to("nowhere")),
}
ONCE = settings(suppress_health_check=list(HealthCheck), deadline=None)


def damaged_copy(run: FinishedRun, folder: Path, data: st.DataObject) -> None:
    """A copy of the run with one file damaged."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run.folder, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    file = data.draw(st.sampled_from(files), "file")
    DAMAGE[data.draw(st.sampled_from(sorted(DAMAGE)), "damage")](file)


def answers(capsys: Capture, *arguments: object) -> int:
    """The exit code; 2 comes with one line."""
    answer = nas_here(capsys, *arguments)
    errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert (answer.code, len(errors)) in ((0, 0), (2, 1)), answer.err
    assert "Traceback" not in answer.err
    return answer.code


def read(folder: Path) -> None:
    try:
        load_run(folder)
    except UserError as error:
        assert str(folder) in error.where


@given(data=st.data())
@settings(ONCE, max_examples=10)
def test_a_report_is_written_or_refused(
    data: st.DataObject, finished_run: FinishedRun, tmp_path: Path, capsys: Capture
) -> None:
    damaged_copy(finished_run, tmp_path / "run", data)
    read(tmp_path / "run")
    answers(capsys, "report", tmp_path / "run")


@pytest.mark.slow
@given(data=st.data())
@settings(ONCE, max_examples=60)
def test_a_resumed_run_is_right_or_refused(
    data: st.DataObject, finished_run: FinishedRun, tmp_path: Path, capsys: Capture
) -> None:
    damaged_copy(finished_run, tmp_path / "run", data)
    if answers(capsys, "run", finished_run.recipe, "-o", tmp_path / "run", "--resume") == 0:
        found, whole = findings(tmp_path / "run"), findings(finished_run.folder)
        assert {key: found[key] for key in ("losses", "networks", "test")} == {
            key: whole[key] for key in ("losses", "networks", "test")
        }
        read(tmp_path / "run")


@pytest.mark.parametrize("name", ["recipe.yaml", "overrides.json"])
@pytest.mark.parametrize("damage", sorted(set(DAMAGE) - {"one byte", "half"}))
def test_what_a_run_was_started_with_is_refused_by_name(
    finished_run: FinishedRun, tmp_path: Path, name: str, damage: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for file in ("recipe.yaml", "overrides.json"):
        shutil.copy(finished_run.folder / file, run)
    DAMAGE[damage](run / name)
    with pytest.raises(UserError) as caught:
        command("run", finished_run.recipe, "-o", run, "--resume")
    assert caught.value.where in (str(run), str(run / name))
