"""The sections of a recipe: a file for each, with its keys, what they mean and what they may be."""
