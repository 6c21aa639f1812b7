"""The recipes that come with the platform, by name."""

from __future__ import annotations

from pathlib import Path

from espalier.nas.errors import UserError
from espalier.nas.files import is_file, write_bytes

FOLDER = Path(__file__).parent / "library"
SCHEMA = "recipe.schema.json"


def shipped_recipes() -> dict[str, Path]:
    """The shipped recipes: name to file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def find_recipe(recipe: str) -> Path:
    """The file of a recipe: a path, or the name of one that ships.

    Raises:
        UserError: neither.
    """
    path = Path(recipe)
    if is_file(path):
        return path
    if path.suffix in (".yaml", ".yml"):
        raise UserError(recipe, "no such recipe file")
    recipes = shipped_recipes()
    if recipe not in recipes:
        raise UserError(recipe, "neither a file nor a recipe that ships", allowed=recipes, given=recipe)
    return recipes[recipe]


def copy_recipe(name: str, folder: Path) -> Path:
    """Copy a shipped recipe into `folder`, with the schema that editors check it with beside it.

    Raises:
        UserError: no such recipe, or the file is there already.
    """
    source = find_recipe(name)
    target = folder / source.name
    if target.exists():
        raise UserError(str(target), "already there; choose another folder or delete it")
    for file in (source, FOLDER / SCHEMA):
        write_bytes(folder / file.name, file.read_bytes())
    return target
