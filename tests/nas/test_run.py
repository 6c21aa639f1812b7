from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from espalier.nas.architecture import Architecture
from espalier.nas.files import atomic_path, read_json, write_json, write_text
from espalier.nas.run import RunFolder
from user_errors import user_error


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_json(path, 1)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with user_error("file.json", "not_writable"):
        write_json(path, 2)
    assert read_json(path) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", float("nan"))
    assert not (tmp_path / "x.json").exists()


def test_unreadable_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with user_error("x.json", "unreadable"):
        read_json(tmp_path / "x.json")
    with user_error("y.json", "not_found"):
        read_json(tmp_path / "y.json")


def test_one_process_at_a_time(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from espalier.nas.run import RunFolder\n"
        "with RunFolder(pathlib.Path(sys.argv[1])).lock(): print('mine')"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with RunFolder(tmp_path).lock():
        blocked = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "another process is using this run folder" in blocked.stderr
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "mine\n"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with user_error("file/run", "not_writable"), RunFolder(tmp_path / "file" / "run").lock():
        pass


def test_stages_are_known_by_their_key(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.finished("train", "k1") is None
    run.finish("train", "k1", {"a": 1})
    assert run.finished("train", "k1") == {"a": 1}
    assert run.finished("train", "k2") is None


def test_the_log_survives_a_cut_line(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.log("a", x=1)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"time": 1, "ev')
    run.log("b", x=2)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(lines[i])["event"] for i in (0, 2)] == ["a", "b"]


def test_an_architecture_has_a_folder(tmp_path: Path) -> None:
    architecture = Architecture({"a": 1})
    folder = RunFolder(tmp_path).architecture(architecture)
    assert folder == tmp_path / "architectures" / architecture.id
    assert Architecture.from_json((folder / "architecture.json").read_text()) == architecture
