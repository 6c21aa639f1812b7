"""The stages of a run, one file each: a function of a section of the recipe, earlier results and services."""
