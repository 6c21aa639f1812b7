"""Progress: bars for whoever watches, log lines for everybody else, nothing on standard output."""

from __future__ import annotations

import logging
import sys

import pytest

from espalier.recipes.commands import progress

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logger as a program finds it that has configured nothing."""
    monkeypatch.setattr(progress.LOGGER, "level", logging.NOTSET)
    monkeypatch.setattr(progress.LOGGER, "handlers", [])
    progress.LOGGER.manager._clear_cache()  # type: ignore[attr-defined]


def test_log_lines_where_there_is_no_terminal(
    capsys: Capture, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, "espalier"):
        assert list(progress.track("abc", "letters", 5, done=2)) == ["a", "b", "c"]
        progress.announce("done")
        with progress.waiting("soon"):
            pass
    assert [record.getMessage() for record in caplog.records] == [
        "  letters: 3/5",
        "  letters: 4/5",
        "  letters: 5/5",
        "done",
        "soon",
    ]
    assert capsys.readouterr().out == ""


def test_few_lines_for_quick_work(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "espalier"):
        assert list(progress.track(range(1000), "quick", 1000)) == list(range(1000))
    assert not caplog.records


def test_a_library_that_nobody_has_configured_is_silent(capsys: Capture) -> None:
    progress.announce("unheard")
    assert list(progress.track("ab", "letters", 2)) == ["a", "b"]
    assert capsys.readouterr() == ("", "")


def test_bars_and_lines_on_a_terminal(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(progress.track("abc", "letters", 3)) == ["a", "b", "c"]
    progress.announce("news [1, 2]")
    with progress.waiting("soon"):
        pass
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "news [1, 2]\n" in captured.err


def test_the_level_of_the_logger_turns_progress_off(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress.LOGGER, "level", logging.WARNING)
    progress.announce("unheard")
    assert list(progress.track("ab", "letters", 2)) == ["a", "b"]
    assert capsys.readouterr() == ("", "")
