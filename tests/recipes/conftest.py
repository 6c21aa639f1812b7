"""Shared fixtures of the tests of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from nas_command import TINY, Answer, nas


@dataclass(frozen=True)
class FinishedRun:
    """A run that one process took to its end. Treat it as read-only.

    Attributes:
        recipe: the file. folder: the run folder. answer: what was printed, with `--json`.
        home, temporary: where the process would have put what belongs to the user or to nobody.
    """

    recipe: Path
    folder: Path
    answer: Answer
    home: Path
    temporary: Path


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """One whole run of the tiny recipe, shared by all tests that only look at it."""
    base = tmp_path_factory.mktemp("finished")
    cwd, home, temporary = (base / name for name in ("cwd", "home", "tmp"))
    for folder in (cwd, home, temporary):
        folder.mkdir()
    recipe = cwd / "tiny.yaml"
    recipe.write_text(TINY)
    answer = nas("run", "tiny.yaml", "-o", "run", "--json", cwd=cwd, HOME=str(home), TMPDIR=str(temporary))
    assert answer.code == 0, answer.err
    return FinishedRun(recipe, cwd / "run", answer, home, temporary)
