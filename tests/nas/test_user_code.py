"""Python files of users: loaded under private names, with what lies beside them."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest

from espalier.nas.user_code import Reference, called, load_file
from user_errors import user_error

DATACLASS = """\
from __future__ import annotations
from dataclasses import dataclass, KW_ONLY

@dataclass
class Point:
    x: int
    _: KW_ONLY
    y: int = 2
"""


@pytest.mark.parametrize(
    ("text", "place", "name"),
    [
        ("my.py:Mine", "my.py", "Mine"),
        ("../a folder/my.py:Mine", "../a folder/my.py", "Mine"),
        ("package.module:Mine", "package.module", "Mine"),
    ],
)
def test_references_are_parsed(text: str, place: str, name: str) -> None:
    assert Reference.parse(text) == Reference(place, name)
    assert str(Reference(place, name)) == text


@pytest.mark.parametrize("text", ["", "darts", "my.py", ":Mine", "my.py:", "my.py:1", "ssh://board", "a-b:c", "a:b=1"])
def test_other_texts_are_no_references(text: str) -> None:
    assert Reference.parse(text) is None


@pytest.mark.parametrize("stem", ["copy", "export", "recipes", "nas", "torch", "my-file"])
def test_a_file_replaces_no_module_of_its_name(tmp_path: Path, stem: str) -> None:
    before = sys.modules.get(stem)
    (tmp_path / f"{stem}.py").write_text(DATACLASS)
    point = Reference(str(tmp_path / f"{stem}.py"), "Point").resolve()
    assert point(1) == point(1, y=2)  # dataclasses look their module up
    assert sys.modules.get(stem) is before
    assert sys.modules["copy"] is copy
    assert not list(tmp_path.glob("__pycache__"))


def test_it_is_executed_once_for_each_content(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("numbers = [1]\n")
    first = load_file(file)
    first.numbers.append(2)
    assert load_file(file).numbers == [1, 2]
    digest = Reference(str(file), "numbers").digest()
    file.write_text("numbers = [3]\n")  # as long, within the same second
    assert load_file(file).numbers == [3]
    assert Reference(str(file), "numbers").digest() != digest


def test_modules_beside_the_file_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "beside_the_file.py").write_text("size = 4\n")
    (tmp_path / "json.py").write_text("1 / 0\n")  # hides nothing that is installed
    (tmp_path / "own.py").write_text("import json\nfrom beside_the_file import size\ntext = json.dumps(size)\n")
    before = list(sys.path)
    assert load_file(tmp_path / "own.py").text == "4"
    assert sys.path == before


def test_modules_are_found_from_the_current_folder_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "__init__.py").write_text("")
    (tmp_path / "own_package" / "blocks.py").write_text("size = 4\n")
    monkeypatch.chdir(tmp_path)
    reference = Reference("own_package.blocks", "size")
    assert reference.resolve() == 4
    assert len(reference.digest()) == 64


def test_errors_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("import math\n\n1 / 0\n")
    (tmp_path / "syntax.py").write_text("def (\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "needs.py").write_text("import nowhere_at_all\n")
    (tmp_path / "own.py").write_text("size = 3\ndef work():\n    raise KeyError('lost')\n")
    with user_error("absent.py", "not_found"):
        load_file(Path("absent.py"))
    with user_error("broken.py", "user_code", says="line 3: ZeroDivisionError"):
        load_file(Path("broken.py"))
    for name, says in (("syntax", "SyntaxError"), ("leaves", "SystemExit: 3"), ("needs", "nowhere_at_all")):
        with user_error(f"{name}.py", "user_code", says=says):
            load_file(Path(f"{name}.py"))
    with user_error("own.py", "unknown", nearest="work"):
        Reference("own.py", "wrok").resolve()
    with user_error("own.py:work", "user_code", says="line 3: KeyError"):
        called(Reference("own.py", "work").resolve(), "own.py:work")
    with user_error("nowhere_at_all.blocks", "not_found", says="nowhere_at_all"):
        Reference("nowhere_at_all.blocks", "x").resolve()
    with user_error("needs", "user_code", says="nowhere_at_all"):
        Reference("needs", "x").resolve()
    assert not [name for name in sys.modules if name.startswith("_espalier_user_broken")]
