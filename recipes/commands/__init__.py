"""A room for each command: typed arguments in, a typed result out, and its text."""
