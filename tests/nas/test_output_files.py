"""Files are written beside others' files: what is no plain file is never replaced, what a killed writer left goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from espalier.nas.files import check_writable_place, write_text
from espalier.nas.scratch import SETTLED_S, ScratchFolder
from user_errors import user_error


def made(kind: str, folder: Path) -> Path:
    path = folder / "out"
    if kind == "device":
        return Path("/dev/null")
    if kind == "link to a device":
        path.symlink_to("/dev/null")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize("kind", ["device", "link to a device", "pipe", "folder"])
def test_what_is_no_plain_file_is_never_replaced(kind: str, tmp_path: Path) -> None:
    path = made(kind, tmp_path)
    before = path.lstat()
    with user_error(str(path), "not_writable"):
        write_text(path, "x")
    with user_error("output", "not_writable"):
        check_writable_place(path, where="output", folder=False)
    after = path.lstat()
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)


@pytest.mark.parametrize("place", ["/dev/null", "/dev/null/below"])
def test_a_place_for_a_folder_is_checked(place: str) -> None:
    with user_error("output", "not_writable"):
        check_writable_place(Path(place), where="output", folder=True)


def test_a_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    left, young = (tmp_path / f".out.json.{name}.tmp" for name in ("a", "b"))
    left.write_text("half")
    young.write_text("half")
    folder = tmp_path / ".latency-old"
    folder.mkdir()
    (folder / "model.onnx").write_text("half")
    long_ago = time.time() - 2 * SETTLED_S
    for path in (left, folder):
        os.utime(path, (long_ago, long_ago))
    write_text(tmp_path / "out.json", "{}")
    assert not left.exists()
    assert young.exists()  # its writer may be about to lock it
    with ScratchFolder(".latency-", tmp_path) as living:
        assert not folder.exists()
        os.utime(living, (long_ago, long_ago))
        with ScratchFolder(".latency-", tmp_path):
            assert Path(living).exists()  # its process lives
    assert sorted(path.name for path in tmp_path.iterdir()) == [young.name, "out.json"]
