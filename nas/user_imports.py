"""The source files that a Python file of the user's consists of: itself, and the modules beside it that it imports.

They are found by reading, without executing anything. What a file computes to be imported, or reads as data, is not
seen.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from espalier.nas.hashing import file_hash

INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders of installed packages: their files do not count as the user's."""

_imported: dict[str, tuple[Path, str]] = {}
"""The file and its hash of each module beside a user's file that this process has imported, by the module's name."""


def source_files(path: Path, root: Path | None = None) -> list[Path]:
    """The file first, then the modules below `root` that it imports, directly or through others, in order.

    Args:
        path: of the file.
        root: the folder that absolute imports start from; the file's own by default.

    Raises:
        OSError: a file cannot be read.
    """
    path = path.resolve()
    root = path.parent if root is None else root.resolve()
    if INSTALLED & set(path.parts):
        return [path]
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += _imported_files(file, root)
    return [path, *sorted(found - {path})]


def source_hashes(path: Path, root: Path | None = None) -> dict[str, str]:
    """The SHA-256 of each of the `source_files`, by its path relative to the file's folder.

    Args:
        path: of the file.
        root: see `source_files`.

    Raises:
        OSError: a file cannot be read.
    """
    folder = path.resolve().parent
    files = source_files(path, root)
    return {Path(os.path.relpath(file, folder)).as_posix(): file_hash(file) for file in files}


def source_digest(path: Path, root: Path | None = None) -> str:
    """One SHA-256 for all of the `source_files`, wherever they are; of a file that imports none of its own.

    Args:
        path: of the file.
        root: see `source_files`.

    Raises:
        OSError: a file cannot be read.
    """
    files = source_files(path, root)
    if len(files) == 1:
        return file_hash(path)
    parts = [file_hash(file) for file in files[:1]]
    parts += [f"{file.name} {file_hash(file)}" for file in files[1:]]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _imported_files(file: Path, root: Path) -> Iterator[Path]:
    """The files below `root` that one file imports itself."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):  # whoever executes it says so
        return
    for node in ast.walk(tree):
        for base, name in _names(node, file, root):
            parts = name.split(".") if name else []
            for length in range(base == root, len(parts) + 1):  # a package's own file, then those of its parts
                yield from _module_files(base.joinpath(*parts[:length]))


def _names(node: ast.AST, file: Path, root: Path) -> Iterator[tuple[Path, str]]:
    """What an instruction imports: a folder to start from, and a dotted name."""
    match node:
        case ast.Import(names=names):
            yield from ((root, alias.name) for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            base = file.parents[min(level, len(file.parents)) - 1] if level else root
            yield from ((base, ".".join(filter(None, (module, alias.name)))) for alias in names)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[ast.Constant(value=str(text)), *_]):
            if name in ("import_module", "__import__"):
                yield root, text.lstrip(".")


def _module_files(place: Path) -> Iterator[Path]:
    """The file of a module, or that of a package, where there is one."""
    for candidate in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
        if candidate.is_file():
            yield candidate.resolve()


@contextmanager
def fresh_imports(files: Sequence[Path]) -> Iterator[None]:
    """Execute a file with the modules beside it as they are now, not as an earlier file of this process found them.

    Args:
        files: the `source_files` of the file, which is the first.
    """
    names = {_module_name(file, files[0].parent): file for file in files[1:]}
    hashes = {name: file_hash(file) for name, file in names.items()}
    if any(name in _imported and _imported[name] != (file, hashes[name]) for name, file in names.items()):
        for name in names.keys() & _imported.keys():
            sys.modules.pop(name, None)
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a cached file of the same second and size may be of another content
    try:
        yield
    finally:
        sys.dont_write_bytecode = before
        for name, file in names.items():
            if getattr(sys.modules.get(name), "__file__", None) == str(file):
                _imported[name] = (file, hashes[name])


def _module_name(file: Path, root: Path) -> str:
    parts = Path(os.path.relpath(file, root)).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
