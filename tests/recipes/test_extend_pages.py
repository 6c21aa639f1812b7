"""The pages about own methods: their files are written, their commands run, and their tests pass."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from nas_command import environment, nas_here

from documentation import ROOT, blocks

PAGES = sorted(path for path in (ROOT / "docs" / "extend").glob("own-*.md"))
WITHOUT_SUITE = {"own-step"}
"""Pages about a function without a contract suite."""
LONG = {"own-device", "own-pruner", "own-strategy"}
"""Pages whose contract suites take up to half a minute; our own methods run the same suites in every test run."""


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow if page.stem in LONG else ()) for page in PAGES],
    ids=lambda page: page.stem,
)
def test_a_page_can_be_followed(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = list(blocks(page))
    for block in found:
        if block.file:
            (tmp_path / block.file).write_text(f"{block.text}\n")
    for block in found:
        if block.language == "bash":
            for program, *arguments in block.commands():
                assert program == "nas"
                answer = nas_here(capsys, *arguments)
                assert answer.code == 0, f"{block.where}: {answer.err}"
    if page.stem in WITHOUT_SUITE:
        return
    [contract] = tmp_path.glob("test_*.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x", contract.name]
    source = environment()["PYTHONPATH"]
    path = environment(PYTHONPATH=f"{source}:{tmp_path}")
    result = subprocess.run(command, cwd=tmp_path, env=path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-3000:]
