"""The command `nas`, as a user starts it, and the smallest recipe that takes all of its stages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from espalier.nas.errors import Code
from user_errors import user_error

COMMAND = (sys.executable, "-c", "from espalier.recipes.cli.app import main; main()")

POLL_S = 0.002

TINY = """\
name: tiny
data:
  source: digits
  limit: 400
  split: {train: 0.5, architecture: 0.1, selection: 0.2, test: 0.2}
space: {name: nasbench201, channels: 2, cells: 1}
supernet: {epochs: 12, batch_size: 64}
search: {objectives: [accuracy, macs], sampler: random, trials: 12}
train: {front: 1, random: 2, epochs: 3, batch_size: 64, predictors: [params, macs]}
profile: {threads: 1, sessions: 2, seconds: 0.1}
"""


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str


def environment(**variables: str) -> dict[str, str]:
    """This process's environment with the packages of this checkout, without what measures the coverage of tests."""
    source = str(Path(__file__).resolve().parents[2] / "src")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLIPCOVER_")}
    return {**inherited, "PYTHONPATH": source, **variables}


def start(*arguments: object, cwd: Path, **variables: str) -> subprocess.Popen[str]:
    """The command in a process of its own, going on while the test does."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def nas(*arguments: object, cwd: Path, **variables: str) -> Answer:
    """The command in a process of its own, to its end."""
    process = start(*arguments, cwd=cwd, **variables)
    out, err = process.communicate(timeout=300)
    return Answer(process.returncode, out, err)


def kill_when(ready: Callable[[Path], bool], run: Path, recipe: Path) -> None:
    """Start or resume the run, and kill the process the moment `ready(run)` holds."""
    resume = ["--resume"] if run.exists() else []
    process = start("run", recipe, "-o", run, *resume, cwd=run.parent)
    deadline = time.monotonic() + 200
    while not ready(run):
        assert process.poll() is None, f"ended before it could be killed: {process.communicate()[1]}"
        assert time.monotonic() < deadline, "nothing to kill for"
        time.sleep(POLL_S)
    process.kill()
    process.communicate()
    assert process.returncode == -9


def nas_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> Answer:
    """The command in this process, which saves the seconds that torch takes to load."""
    from espalier.recipes.cli.app import main

    capsys.readouterr()
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nas", *map(str, arguments)])
        try:
            main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    captured = capsys.readouterr()
    return Answer(code, captured.out, captured.err)


def command(*arguments: object) -> None:
    """The command in this process; an error is raised as it is, instead of printed."""
    from espalier.recipes.cli.app import app

    app([*map(str, arguments)], standalone_mode=False)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that the command refuses with, without its `error: `."""
    answer = nas_here(capsys, *arguments)
    assert answer.code == 2, answer
    assert answer.out == ""
    *progress, line = answer.err.splitlines()
    assert line.startswith("error: ")
    assert not [said for said in progress if "error" in said or "Traceback" in said]
    return line.removeprefix("error: ")


def run_is_rejected(recipe: object, *overrides: str, where: str, code: Code | None, says: str = "") -> None:
    """The recipe must end in a `UserError` in this process; see `user_error`."""
    from espalier.recipes.config.loading import load_recipe
    from espalier.recipes.engine.runner import run_recipe

    with user_error(where, code, says=says):
        run_recipe(load_recipe(str(recipe), overrides), Path("run"))


def log(folder: Path, event: str) -> list[dict[str, Any]]:
    """The rows of one kind in a run's log; a line that is being written is left out."""
    path = folder / "log.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [row for row in map(json.loads, lines) if row["event"] == event]


def stage(folder: Path, name: str) -> Any:
    """The outputs of a finished stage."""
    return json.loads((folder / "stages" / f"{name}.json").read_text())["outputs"]


def losses(folder: Path) -> list[list[float]]:
    """The training losses of each supernet, epoch by epoch."""
    return [[row["loss"] for row in part["rows"]] for part in stage(folder, "supernet")["parts"]]


def findings(folder: Path) -> dict[str, Any]:
    """What a run found, without what depends on the clock."""
    networks = stage(folder, "train")["networks"]
    return {
        "losses": losses(folder),
        "candidates": [(c["id"], c["status"], c["values"]) for c in stage(folder, "search")["candidates"]],
        "front": stage(folder, "search")["front"],
        "networks": [(n["id"], n["origin"], [row["accuracy"] for row in n["rows"]]) for n in networks],
        "test": stage(folder, "test"),
    }


def leftovers(folder: Path) -> list[Path]:
    """Hidden files of a run folder, of which the lock is the only one that may stay."""
    return [path for path in folder.rglob(".*") if path.name != ".lock"]
