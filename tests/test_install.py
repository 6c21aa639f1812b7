"""What is built and installed: one import name, all files of data, and no quarrel with other packages or files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("nas", "supernets", "predictors", "pruning", "export", "recipes")
SOURCES = ("src", *FLOORS)
PROJECT_FILES = ("pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "CHANGELOG.md")
RIVALS = ("recipes", "export", "nas")
"""Names at the top that a package beside this one owns: torchtune 0.6 installs `recipes`."""
NETWORK = """\
from torch import nn


class network(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
        )
"""
QUICK = ("train.epochs=1", "profile.seconds=0.05", "profile.threads=1", "data.limit=200")


def python(*arguments: str | Path, where: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in a folder, with `path` as the first place where it looks for packages."""
    environment = {**os.environ, "PYTHONSAFEPATH": "", "PYTHONPATH": "" if path is None else str(path)}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=where, env=environment, capture_output=True, text=True, check=False
    )


def build(tree: Path, kind: str, folder: Path) -> Path:
    """A distribution of the tree (`wheel` or `sdist`), made by the build backend that pyproject.toml names."""
    folder.mkdir()
    script = f"from setuptools.build_meta import build_{kind} as build; print(build({str(folder)!r}))"
    result = python("-c", script, where=tree)
    assert result.returncode == 0, result.stderr[-2000:]
    return folder / result.stdout.splitlines()[-1]


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout's product: a build leaves folders behind."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        shutil.copytree(
            ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
    for name in PROJECT_FILES:
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="session")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tree, "wheel", tmp_path_factory.mktemp("wheel") / "out")


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_only_name_at_the_top_is_espalier(wheel: Path) -> None:
    assert {name.split("/")[0] for name in members(wheel)} == {"espalier"}


def test_the_wheel_holds_every_file(wheel: Path) -> None:
    """Code, the recipe library, templates and `py.typed`: whatever lies in the folders."""
    files = {f"espalier/{name}" for name in ("__init__.py", "py.typed")}
    for folder in (*FLOORS, *(path.name for path in (ROOT / "src/espalier").iterdir() if path.is_dir())):
        found = (path for path in (ROOT / "src/espalier" / folder).rglob("*") if path.is_file())
        files |= {path.relative_to(ROOT / "src").as_posix() for path in found if "__pycache__" not in path.parts}
    assert files - members(wheel) == set()
    assert {"espalier/py.typed", "espalier/recipes/config/library/quickstart.yaml"} <= members(wheel)


def test_the_source_distribution_builds_the_same_wheel(tree: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build(tree, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.name.startswith("espalier_nas-"))
    assert members(build(unpacked, "wheel", tmp_path / "wheel")) == members(wheel)


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages: this project's wheel, and a package that owns some of its folders' names."""
    site = tmp_path_factory.mktemp("site")
    result = python(
        *("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile", "--target", site, wheel),
        where=site,
    )
    assert result.returncode == 0, result.stderr
    for name in RIVALS:
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(f'raise ImportError("{name} is not for you")\n')
    return site


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A user's folder, whose files are called like this project's folders and the standard library's modules."""
    for name in ("export.py", "copy.py"):
        (tmp_path / name).write_text(NETWORK)
    return tmp_path


def nas(installed: Path, here: Path, *arguments: str) -> str:
    result = python(installed / "bin/nas", *arguments, where=here, path=installed)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_installed_package_is_used(installed: Path, here: Path) -> None:
    result = python("-P", "-c", "import espalier; print(espalier.__file__)", where=here, path=installed)
    assert Path(result.stdout.strip()) == installed / "espalier/__init__.py"


def test_commands_work_beside_a_package_of_the_same_names(installed: Path, here: Path) -> None:
    assert "quickstart" in nas(installed, here, "ls")


@pytest.mark.parametrize("file", ["export.py", "copy.py"])
def test_files_of_users_have_any_name(file: str, installed: Path, here: Path) -> None:
    nas(installed, here, "prune", f"{file}:network", "-o", "pruned", "--target", "sparsity=0.5", *QUICK)
    assert (here / "pruned/model.safetensors").is_file()
    assert "synflow" in nas(installed, here, "score", f"{file}:network", "--scores", "synflow")


def test_a_script_beside_such_files_imports_the_package(installed: Path, tmp_path: Path) -> None:
    for name in ("export.py", "recipes.py", "pruning.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "mine.py").write_text("import espalier.export.onnx, espalier.recipes.cli.app, espalier.pruning\n")
    result = python("mine.py", where=tmp_path, path=installed)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("floor", FLOORS)
def test_a_folder_of_the_checkout_is_no_second_copy(floor: str) -> None:
    result = python("-c", f"import {floor}", where=ROOT)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"ImportError: import espalier.{floor}, not {floor}")
