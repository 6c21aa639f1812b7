"""Roof: recipes, their schema, the runner, the command line and the report."""

if __name__ != "espalier.recipes":
    raise ImportError("import espalier.recipes, not recipes: the folder is a part of the package espalier")
