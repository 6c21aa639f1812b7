from __future__ import annotations

import sys

import pytest

from espalier.recipes.commands import progress


def test_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    assert list(progress.track("abc", "letters", 5, done=2)) == ["a", "b", "c"]
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["  letters: 3/5", "  letters: 4/5", "  letters: 5/5"]
    assert captured.out == ""


def test_few_lines_for_quick_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.track(range(1000), "quick", 1000)) == list(range(1000))
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress.track("abc", "letters", 3)) == ["a", "b", "c"]
    with progress.waiting("soon"):
        pass
    assert capsys.readouterr().out == ""
