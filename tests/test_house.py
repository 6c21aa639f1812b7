"""The rules of the house: who may import whom, where third parties live, and what nobody does."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WINGS = ("supernets", "predictors", "pruning", "export")
MAY_IMPORT = {"nas": {"nas"}, "recipes": {"nas", *WINGS, "recipes"}, **{wing: {"nas", wing} for wing in WINGS}}
HOMES = {
    "optuna": ("nas/search/",),
    "timm": ("nas/",),
    "nni": ("nas/spaces/nni/",),
    "onnx": ("export/",),
    "onnxruntime": ("export/",),
    "onnxscript": ("export/",),
    "torch_pruning": ("pruning/",),
    "typer": ("recipes/",),
    "rich": ("recipes/",),
    "plotly": ("recipes/",),
}
AT_THE_TOP = {"numpy", "torch", "pydantic", "pydantic_core", "yaml", "typer"}
"""Third parties that a module may import when it is itself imported; all others wait until they are needed."""
OPTIONAL_THERE = {"PIL"}
"""What the agent may use on a device that has it."""
FILES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """Top-level package, whether it is imported with the module (not in a function or for types only), line."""
    tree = ast.parse(path.read_text())
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.Lambda)
        or (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield package_of(alias.name), id(node) not in late, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield package_of(str(node.module)), id(node) not in late, node.lineno


def package_of(module: str) -> str:
    """A floor of this house (`nas` of `espalier.nas.space`), or the top-level package of a third party."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == "espalier" else first


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    floor = name.split("/")[0]
    for package, early, line in imports(path):
        where = f"{name}:{line}: imports {package}"
        if package in MAY_IMPORT:
            assert package in MAY_IMPORT[floor], f"{where}: floors import downwards, wings never each other"
        elif package in HOMES:
            assert name.startswith(HOMES[package]), f"{where}: its home is {HOMES[package]}"
        if package in MAY_IMPORT or package in sys.stdlib_module_names or package in AT_THE_TOP:
            continue
        inside = package == "optuna" and name.startswith("nas/search/")  # these modules are themselves imported late
        assert inside or not early, f"{where} at its top: heavy libraries are imported where they are needed"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_pickles_or_swallows(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path.name}:{node.lineno}: bare except"
            assert not all(isinstance(step, ast.Pass) for step in node.body), f"{path.name}:{node.lineno}: swallowed"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            call = f"{ast.unparse(node.func)}"
            assert call not in {"pickle.load", "pickle.loads", "pickle.dump", "pickle.dumps"}, f"{path.name}: {call}"
            if call == "torch.load":
                assert "weights_only=True" in ast.unparse(node), f"{path.name}:{node.lineno}: torch.load of anything"


@pytest.mark.parametrize("path", sorted((ROOT / "export/devices/agent").glob("*.py")), ids=lambda path: path.name)
def test_the_agent_stands_alone(path: Path) -> None:
    """It is sent to machines that have Python 3.8, numpy and onnxruntime, and nothing else of this project."""
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            package = name.split(".")[0]
            stands = name.startswith("espalier.export.devices.agent") or package in {
                "numpy",
                "onnxruntime",
                *OPTIONAL_THERE,
            }
            assert stands or package in sys.stdlib_module_names, f"{path.name}:{node.lineno}: imports {name}"


def test_help_needs_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "optuna", "rich.live")
    script = f"import espalier.recipes.cli.app, sys; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_files_are_rooms_not_halls() -> None:
    long = [path.name for path in FILES if len(path.read_text().splitlines()) > 400]
    assert not long
