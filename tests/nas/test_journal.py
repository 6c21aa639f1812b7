"""The file of a study: what was killed is cut off, what was edited is refused, what is whole can be kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.nas.search.journal import RunJournal, salvage_journal
from user_errors import user_error

LOGS: list[dict[str, Any]] = [{"op_code": 0, "accuracy": 0.5 + number / 100} for number in range(6)]
Lines = list[bytes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    RunJournal(tmp_path / "study.journal").append_logs(LOGS)
    return tmp_path / "study.journal"


def changes(path: Path) -> list[dict[str, Any]]:
    return list(RunJournal(path).read_logs(0))


def test_what_was_appended_is_read_by_the_next_process(path: Path) -> None:
    assert changes(path) == LOGS
    RunJournal(path).append_logs(LOGS[:2])
    assert changes(path) == [*LOGS, *LOGS[:2]]
    assert list(RunJournal(path).read_logs(6)) == LOGS[:2]


@pytest.mark.parametrize("kept", [0, 1, 30])
def test_half_a_last_line_is_cut_off_and_told(path: Path, kept: int, caplog: pytest.LogCaptureFixture) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
    assert changes(path) == LOGS[:-1]
    assert ("study.journal" in caplog.text) == (kept > 0)
    RunJournal(path).append_logs(LOGS[-1:])
    assert changes(path) == LOGS


def edited(lines: Lines) -> Lines:
    return [*lines[:3], lines[3].replace(b"0.52", b"1.10"), *lines[4:]]


DAMAGE: dict[str, tuple[Callable[[Lines], Lines], int]] = {
    "emptied": (lambda lines: [], 1),
    "first line gone": (lambda lines: lines[1:], 1),
    "a line gone": (lambda lines: [*lines[:2], *lines[3:]], 3),
    "a line twice": (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4),
    "two lines exchanged": (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 3),
    "an accuracy edited": (edited, 4),
    "without checksums": (lambda lines: [line[17:] for line in lines], 1),
    "not a study": (lambda lines: [b"nonsense\n"], 1),
    "binary": (lambda lines: [*lines[:4], b"\xff\x00\xfe\n", *lines[4:]], 5),
    "a line of another study": (lambda lines: [*lines, lines[-1]], 8),
    "blank line": (lambda lines: [*lines[:5], b"\n", *lines[5:]], 6),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_with_its_line_and_salvaged(path: Path, name: str) -> None:
    damage, line = DAMAGE[name]
    content = b"".join(damage(path.read_bytes().splitlines(keepends=True)))
    path.write_bytes(content)
    with user_error("study.journal", "unreadable", says=f"line {line} "):
        RunJournal(path)
    assert path.read_bytes() == content
    salvage_journal(path)
    assert changes(path) == LOGS[: max(line - 2, 0)]
    assert path.with_name("study.journal.damaged").read_bytes() == content
    RunJournal(path).append_logs(LOGS)  # it goes on
    assert changes(path) == [*LOGS[: max(line - 2, 0)], *LOGS]


def test_salvage_leaves_a_whole_journal_alone(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    salvage_journal(path)
    salvage_journal(tmp_path / "none")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["study.journal"]


@given(data=st.data())
def test_no_other_content_is_ever_read(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A journal in which any bytes were changed is refused, or read as a beginning of what it was."""
    path = tmp_path_factory.mktemp("journal") / "study.journal"
    RunJournal(path).append_logs(LOGS)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    salvage_journal(path)
    found = changes(path)
    assert found == LOGS[: len(found)]
    shutil.rmtree(path.parent)


def test_lines_are_json_after_their_checksum(path: Path) -> None:
    assert [json.loads(line[17:]) for line in path.read_text().splitlines()[1:]] == LOGS
