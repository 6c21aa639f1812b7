"""Every method has a page, and what the pages show is accepted as a recipe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from espalier.recipes.config.loading import load_recipe
from espalier.recipes.config.registry import ENSEMBLES, PRUNERS, SCORES, STRATEGIES
from espalier.recipes.config.sections.select import SelectSettings

PAGES = Path(__file__).resolve().parents[1] / "docs" / "methods"
SECTIONS = ("What it does", "When to use it", "What it costs", "What we measured", "How to use it", "Papers")
CONTROLS = {"fixed_alpha"}
"""Methods that stand on the page of another."""
RECIPE: dict[str, Any] = {
    "name": "page",
    "data": {"source": "digits", "split": {"train": 0.5, "architecture": 0.1, "selection": 0.2, "test": 0.2}},
    "space": "nasbench201",
    "supernet": {"epochs": 5},
    "search": {"trials": 2},
}


def blocks(page: Path) -> list[Any]:
    """The YAML blocks of a page, read."""
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]


def test_every_method_has_a_page() -> None:
    text = "\n".join(page.read_text() for page in PAGES.rglob("*.md"))
    selections = get_args(get_args(SelectSettings.model_fields["methods"].annotation)[0])
    names = {*STRATEGIES, *selections, *SCORES, *ENSEMBLES, *PRUNERS} - CONTROLS
    assert not sorted(name for name in names if f"(`{name}`)" not in text)


@pytest.mark.parametrize("page", sorted(PAGES.rglob("*/*.md")), ids=lambda page: page.stem)
def test_page_has_all_sections_and_is_in_the_index(page: Path) -> None:
    text = page.read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == list(SECTIONS)
    assert f"({page.relative_to(PAGES)})" in (PAGES / "index.md").read_text()


@pytest.mark.parametrize(
    "page", sorted(page for page in PAGES.rglob("*/*.md") if blocks(page)), ids=lambda page: page.stem
)
def test_fragments_are_recipes(page: Path, tmp_path: Path) -> None:
    for fragment in blocks(page):
        for table in ("other_device.json", "table.csv"):
            (tmp_path / table).write_text("")
        recipe = {**RECIPE}
        for section, settings in fragment.items():
            recipe[section] = {**recipe.get(section, {}), **settings}
        if "rank" in recipe:
            recipe["rank"] = {"table": "table.csv", "target": "accuracy", **recipe["rank"]}
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe))
        load_recipe(str(path), [])
