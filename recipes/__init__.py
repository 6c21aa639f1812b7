"""Roof: recipes, their schema, the runner, the command line and the report."""
