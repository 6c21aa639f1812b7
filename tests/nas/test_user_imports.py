"""What a user's file consists of: itself, and the modules beside it that it imports."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from espalier.nas.user_code import Reference, load_file
from espalier.nas.user_imports import source_digest, source_files

FILES = {
    "net.py": "import os, numpy\nimport blocks\nfrom parts import stem\nVALUE = (blocks.VALUE, stem.VALUE)\n",
    "blocks.py": "from deep import VALUE\n",
    "deep.py": "VALUE = 1\n",
    "parts/__init__.py": "",
    "parts/stem.py": "from . import sizes\nfrom .sizes import VALUE\nfrom .heads import HEAD\n",
    "parts/sizes.py": "VALUE = 2\n",
    "parts/heads.py": "def late():\n    import importlib\n    return importlib.import_module('lazy')\nHEAD = 3\n",
    "lazy.py": "",
    "unrelated.py": "VALUE = 9\n",
    "numpy.txt": "",
}
IMPORTED = ["blocks", "deep", "lazy", "net", "parts/__init__", "parts/heads", "parts/sizes", "parts/stem"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "own"


def test_the_files_that_count(folder: Path) -> None:
    found = source_files(folder / "net.py")
    assert found[0] == (folder / "net.py").resolve()
    assert sorted(file.relative_to(folder.resolve()).with_suffix("").as_posix() for file in found) == IMPORTED


@pytest.mark.parametrize("name", IMPORTED)
def test_an_edited_file_that_counts_changes_the_digest(folder: Path, name: str) -> None:
    before = Reference(str(folder / "net.py"), "VALUE").digest()
    path = folder / f"{name}.py"
    path.write_text(f"{path.read_text()}\n# edited\n")
    assert Reference(str(folder / "net.py"), "VALUE").digest() != before


def test_what_does_not_count(folder: Path) -> None:
    before = source_digest(folder / "net.py")
    (folder / "unrelated.py").write_text("VALUE = 10\n")
    assert source_digest(folder / "net.py") == before
    moved = folder.with_name("moved")
    shutil.move(folder, moved)
    assert source_digest(moved / "net.py") == before


@pytest.mark.parametrize("text", ["import net\n", "def f(:\n", "from . import *\nfrom .. import x\nimport a.b.c\n", ""])
def test_circles_mistakes_and_modules_that_do_not_exist(tmp_path: Path, text: str) -> None:
    (tmp_path / "net.py").write_text(text)
    assert source_files(tmp_path / "net.py") == [(tmp_path / "net.py").resolve()]


def test_an_edited_neighbour_is_imported_again(folder: Path) -> None:
    assert load_file(folder / "net.py").VALUE == (1, 2)
    (folder / "deep.py").write_text("VALUE = 5\n")  # as long, and perhaps of the same second
    assert load_file(folder / "net.py").VALUE == (5, 2)
    assert not list(folder.rglob("*.pyc"))


def test_files_of_two_folders_have_neighbours_of_their_own(folder: Path) -> None:
    other = folder.with_name("other")
    shutil.copytree(folder, other)
    (other / "deep.py").write_text("VALUE = 7\n")
    assert [load_file(place / "net.py").VALUE for place in (folder, other, folder)] == [(1, 2), (7, 2), (1, 2)]
