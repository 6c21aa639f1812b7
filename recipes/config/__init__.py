"""What a user may write: recipes, settings of commands, names of methods. Knows nothing of runs."""
