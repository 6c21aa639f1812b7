"""Code of the user's: `FILE.py:NAME` and `package.module:NAME`.

A file is loaded under a private name, so that one called `export.py` or `copy.py` replaces nothing. Its folder is
searched for imports after everything that is installed: a module beside the file can be imported, and hides nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.user_imports import fresh_imports, source_digest, source_files

FILE = re.compile(r"(?P<place>.+\.py):(?P<name>[^\W\d]\w*)")
MODULE = re.compile(r"(?P<place>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")
_loaded: dict[tuple[Path, str], ModuleType] = {}
"""The modules of files by their path and their digest: a file that was edited, or imports one, is loaded again."""


@dataclass(frozen=True)
class Reference:
    """Where something of the user's is found.

    Attributes:
        place: a path that ends in `.py`, relative to the current folder, or the dotted name of a module.
        name: of the class or function in it.
    """

    place: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Reference | None:
        """A reference from `FILE.py:NAME` or `package.module:NAME`; None if the text is neither."""
        match = FILE.fullmatch(text) or MODULE.fullmatch(text)
        return None if match is None else cls(match["place"], match["name"])

    @property
    def is_file(self) -> bool:
        """Whether `place` is a path."""
        return self.place.endswith(".py")

    def module(self) -> ModuleType:
        """The module, executed if it has not been.

        Raises:
            UserError: there is no such file or module, or it raises.
        """
        return load_file(Path(self.place)) if self.is_file else _imported(self.place)

    def resolve(self, wanted: Callable[[Any], bool] = callable) -> Any:
        """What the reference stands for.

        Args:
            wanted: tells the module's members that may be suggested in place of a name that does not exist.

        Raises:
            UserError: there is no such file, module or name, or the code raises.
        """
        module = self.module()
        if not hasattr(module, self.name):
            raise UserError(self.place, f"has no {self.name!r}", allowed=_own_members(module, wanted), given=self.name)
        return getattr(module, self.name)

    def digest(self) -> str:
        """One sha256 of the source file and the modules beside it that it imports, in hexadecimal.

        Of a module without a file it is that of the name.

        Raises:
            UserError: there is no such file or module, or it cannot be read.
        """
        file: str | None = self.place if self.is_file else self.module().__file__
        if file is None:
            return hashlib.sha256(self.place.encode()).hexdigest()
        path = Path(file).resolve()
        root = path.parents[0 if self.is_file else self.place.count(".") + (path.name == "__init__.py")]
        try:
            return source_digest(path, root)
        except OSError as error:
            raise UserError(str(file), f"cannot be read: {error.strerror or error}", code="unreadable") from error

    def __str__(self) -> str:
        return f"{self.place}:{self.name}"


def _own_members(module: ModuleType, wanted: Callable[[Any], bool]) -> list[str]:
    """The public names that a module defines itself or, where it defines none of the wanted kind, imports."""
    found = {name: value for name, value in vars(module).items() if not name.startswith("_") and wanted(value)}
    own = [name for name, value in found.items() if getattr(value, "__module__", None) == module.__name__]
    return own or list(found)


def load_file(path: Path) -> ModuleType:
    """The module of a Python file, executed once for each content of it and of the modules beside it that it imports.

    Raises:
        UserError: there is no such file, it cannot be read, or it raises.
    """
    if not path.is_file():
        raise UserError(str(path), "is not a Python file", code="not_found")
    path = path.resolve()
    try:
        content, key = path.read_bytes(), (path, source_digest(path))
        if key not in _loaded:
            with fresh_imports(source_files(path)):
                _loaded[key] = _executed(path, content)
    except OSError as error:
        raise UserError(str(path), f"cannot be read: {error.strerror or error}", code="unreadable") from error
    return _loaded[key]


class _Loader(SourceFileLoader):
    """Compiles the content that was read: a cached `.pyc` of the same second and size may be of another one."""

    def __init__(self, name: str, path: Path, content: bytes) -> None:
        super().__init__(name, str(path))
        self._content = content

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self._content, self.path)
        return code


def _executed(path: Path, content: bytes) -> ModuleType:
    identity = hashlib.sha256(bytes(path) + b"\0" + content).hexdigest()[:12]
    name = f"_espalier_user_{path.stem}_{identity}"
    loader = _Loader(name, path, content)
    module = importlib.util.module_from_spec(ModuleSpec(name, loader, origin=str(path)))
    module.__file__ = str(path)
    sys.modules[name] = module  # where dataclasses look their module up
    try:
        with _importable(path.parent):
            loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's file may raise anything
        del sys.modules[name]
        raise UserError(str(path), _cause(error, path), code="user_code") from error
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Modules in the folder can be imported, after all others."""
    sys.path.append(str(folder))
    importlib.invalidate_caches()  # a module may have been written a moment ago
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _imported(name: str) -> ModuleType:
    with _importable(Path.cwd()):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                raise UserError(name, f"there is no module {error.name!r}", code="not_found") from error
            raise UserError(name, _cause(error, None), code="user_code") from error
        except (Exception, SystemExit) as error:  # the user's module may raise anything
            raise UserError(name, _cause(error, None), code="user_code") from error


def _cause(error: BaseException, path: Path | None) -> str:
    """The line of the file that raised, where it is known, and the first line of what it said."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    where = f"line {lines[-1]}: " if lines else ""
    said = next(iter(str(error).splitlines()), "")
    return f"{where}{type(error).__name__}{': ' if said else ''}{said}"


def called(make: Callable[..., Any], where: str, *arguments: Any, **options: Any) -> Any:
    """What a class or function of the user's makes.

    Args:
        make: the class or function.
        where: its reference, for the error.
        *arguments: handed on.
        **options: handed on.

    Raises:
        UserError: it raises; a `UserError` of its own passes unchanged.
    """
    try:
        return make(*arguments, **options)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise UserError(where, _cause(error, _file_of(make)), code="user_code") from error


def _file_of(thing: Any) -> Path | None:
    """The file that a class or function was defined in, where it has one."""
    try:
        return Path(inspect.getfile(thing))
    except (TypeError, OSError):
        return None
