"""The commands that show what ships: `nas ls`, `nas recipes copy` and `nas recipes schema`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from espalier.recipes.cli.options import AsJson, Command, print_result

recipes_app = typer.Typer(help="The recipes that ship.", no_args_is_help=True)


def ls(as_json: AsJson = False) -> None:
    """List everything that has a name: recipes, spaces, strategies, pruning methods, devices, ..."""
    from espalier.recipes.commands.progress import waiting
    from espalier.recipes.config.registry import listing

    with waiting("listing"):
        names = listing()
    print_result(names, as_json)


@recipes_app.command("copy", cls=Command)
def copy(
    name: Annotated[str, typer.Argument(help="A shipped recipe (see nas ls).")],
    folder: Annotated[Path, typer.Argument(help="Where to copy it.")] = Path(),
) -> None:
    """Copy a recipe, and the schema that editors check it with, to edit it."""
    from espalier.recipes.config.recipe_library import copy_recipe

    typer.echo(copy_recipe(name, folder))


@recipes_app.command("schema", cls=Command)
def schema() -> None:
    """Print the JSON schema of recipes."""
    from espalier.recipes.config.json_schema import json_schema

    typer.echo(json_schema())
