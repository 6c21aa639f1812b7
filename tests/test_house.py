"""The rules of the house: who may import whom, where third parties live, and what nobody does."""

from __future__ import annotations

import ast
import functools
import re
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
ROOF = {
    "config": {"config"},
    "records": {"config", "records"},
    "inputs": {"config", "records", "inputs"},
    "report": {"config", "records", "report"},
    "engine": {"config", "records", "inputs", "report", "engine"},
    "commands": {"config", "records", "inputs", "report", "engine", "commands"},
    "cli": {"config", "records", "inputs", "report", "engine", "commands", "cli"},
}
"""What the folders of `recipes` may import of each other."""
SECTIONS = ("Args:", "Attributes:", "Raises:", "Returns:", "Yields:")
"""Of a docstring in Google's style."""


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
        if not package:  # the front door, which loads nothing until it is asked
            assert name.startswith("recipes/cli/"), f"{where}espalier itself, which stands above it"
            continue
        if package in MAY_IMPORT:
            assert package in MAY_IMPORT[floor], f"{where}: floors import downwards, wings never each other"
        elif package in HOMES:
            assert name.startswith(HOMES[package]), f"{where}: its home is {HOMES[package]}"
        if package in MAY_IMPORT or package in sys.stdlib_module_names or package in AT_THE_TOP:
            continue
        inside = package == "optuna" and name.startswith("nas/search/")  # these modules are themselves imported late
        assert inside or not early, f"{where} at its top: heavy libraries are imported where they are needed"


def module_of(path: Path) -> str:
    """`nas.data` of `nas/data/__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def for_types(tree: ast.AST) -> set[int]:
    """The nodes that only a type checker reads."""
    tests = (node for node in ast.walk(tree) if isinstance(node, ast.If) and isinstance(node.test, ast.Name))
    return {id(inner) for node in tests if node.test.id == "TYPE_CHECKING" for inner in ast.walk(node)}  # type: ignore[attr-defined]


@functools.cache
def module_graph() -> dict[str, set[str]]:
    """Which modules of this house each module imports, at its top or later, but not for types alone."""
    modules = {module_of(path): path for path in FILES}
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        tree = ast.parse(path.read_text())
        skipped, imported = for_types(tree), set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and id(node) not in skipped:
                base = str(node.module).removeprefix("espalier.")
                for alias in node.names:
                    name = f"{base}.{alias.name}"
                    imported |= {name if name in modules else base} & modules.keys()
        graph[module] = imported - {module}
    return graph


def test_no_two_modules_import_each_other() -> None:
    import networkx

    graph = networkx.DiGraph([(module, other) for module, others in module_graph().items() for other in others])
    circles = {frozenset(part) for part in networkx.strongly_connected_components(graph) if len(part) > 1}
    assert not circles


def test_the_roof_has_floors() -> None:
    climbers = {}
    for module, others in module_graph().items():
        floor = module.split(".")[1] if module.startswith("recipes.") else ""
        above = {other for other in others if floor and other.startswith("recipes.")}
        above = {other for other in above if other.split(".")[1] not in ROOF[floor]}
        if above:
            climbers[f"{module.replace('.', '/')}.py"] = above
    assert not climbers


def documented(path: Path) -> Iterator[tuple[int, str]]:
    """The docstrings of a file with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield getattr(node, "lineno", 1), text


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_have_one_argument_a_line(path: Path) -> None:
    """`a, b: what` and `Args: a: what` cannot be read by editors and tools."""
    for line, text in documented(path):
        section = ""
        for row in text.splitlines():
            if row and not row.startswith(" "):
                section = next((name for name in SECTIONS if row.startswith(name)), "")
                assert row.rstrip() == section or not section, f"{path.name}:{line}: {row}"
            elif section in ("Args:", "Attributes:"):
                assert not re.match(r" {4}\*{0,2}\w+(, \*{0,2}\w+)+:", row), f"{path.name}:{line}: {row.strip()}"


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
