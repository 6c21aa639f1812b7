"""What mkdocs does besides: it lists folders in the navigation, and adds the reference pages that code generates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from command_line_page import command_line_page
from formulas import as_mathml
from json_schemas import schema_of, tables
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from recipe_page import prune_and_quantize_page, recipe_page

GENERATED: dict[str, Callable[[], str]] = {
    "reference/command-line.md": command_line_page,
    "reference/recipe.md": recipe_page,
    "reference/prune-and-quantize.md": prune_and_quantize_page,
}
TITLES = {
    "supernets": "Supernets",
    "selection": "Selection from a supernet",
    "scores": "Zero-cost scores",
    "predictors": "Predictors",
    "pruning": "Pruning",
    "deployment": "Deployment",
}
"""Titles of folders inside folders, in their order."""
ORDER = (
    *("index", "install", "first-run", "report"),
    *("images", "search", "supernets", "guided-search", "budgets", "rank", "prune", "quantize", "profile", "devices"),
    *("command-line", "recipe", "prune-and-quantize", "json", "run-folder"),
    *("scores", "pruning", "quantization", "latency", "speed"),
)
"""Pages that come first in their folder; the others follow by name."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of a folder in the place of its name in the navigation."""
    config.nav = _filled(config.nav or [], Path(config.docs_dir))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, page in GENERATED.items():
        files.append(File.generated(config, path, content=page()))
    for name, rows in tables((Path(config.docs_dir) / "reference/json.md").read_text()).items():
        schema = json.dumps(schema_of(rows), indent=2)
        files.append(File.generated(config, f"reference/schemas/{name}.json", content=schema))
    return files


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn formulas into MathML, which browsers show without a script."""
    return as_mathml(html)


def _filled(nav: list[Any], docs: Path) -> list[Any]:
    filled: list[Any] = []
    for item in nav:
        if isinstance(item, dict):
            [(title, value)] = item.items()
            if isinstance(value, list):
                value = _filled(value, docs)
            elif value.endswith("/"):
                value = _pages(docs, value.rstrip("/"))
            if isinstance(value, list) or (docs / value).exists():
                filled.append({title: value})
        else:
            filled.append(item)
    return filled


def _pages(docs: Path, folder: str) -> list[Any]:
    """The pages of a folder and what is generated into it, in the order of `ORDER`, then by name; then its folders."""
    written = {path.relative_to(docs).as_posix() for path in (docs / folder).glob("*.md")}
    generated = {path for path in GENERATED if path.startswith(f"{folder}/")}
    inner = [name for name in TITLES if (docs / folder / name).is_dir()]
    return [
        *sorted(written | generated, key=_place),
        *({TITLES[name]: _pages(docs, f"{folder}/{name}")} for name in inner),
    ]


def _place(path: str) -> tuple[int, str]:
    stem = re.sub(r"\.md$", "", path.rpartition("/")[2])
    return (ORDER.index(stem) if stem in ORDER else len(ORDER), stem)
