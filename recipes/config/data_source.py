"""Where a command's images come from: the one argument `data`, as a section of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from espalier.nas.errors import UserError
from espalier.recipes.config.options import options_from_text
from espalier.recipes.config.registry import DATA_SOURCES
from espalier.recipes.config.sections.data import NOT_THE_USERS


def data_source(data: str | Path) -> tuple[str | dict[str, Any], Path | None]:
    """The kind of a source (see `espalier.nas.data.SOURCES`) and its path, or the section of an own source.

    Args:
        data: `digits`, an own source `FILE.py:NAME` or `FILE.py:NAME:key=value`, a file `.parquet` or `.npz`, or a
            folder with parquet files or with a folder for each class.

    Raises:
        UserError: there is no such file or folder, or an own source cannot be used.
    """
    if data == "digits":
        return "digits", None
    path = Path(data)
    name, _ = DATA_SOURCES.split(str(data))
    if not path.exists() and DATA_SOURCES.own(name) is not None:
        name, options = options_from_text(DATA_SOURCES, str(data), where="data", without=NOT_THE_USERS)
        return {"name": name, **options}, None
    if not path.exists():
        raise UserError("data", f"{path} does not exist, and is not digits", code="not_found")
    if path.suffix in (".parquet", ".npz"):
        return path.suffix[1:], path
    return ("parquet" if path.is_dir() and any(path.glob("*.parquet")) else "folder"), path


def data_section(data: str | Path, test_data: str | Path | None, size: int | None) -> dict[str, Any]:
    """The section `data` of a command's settings, for its arguments `data`, `test_data` and `size`."""
    source, path = data_source(data)
    return {"source": source, "path": path, "test_path": test_data, "size": size}
