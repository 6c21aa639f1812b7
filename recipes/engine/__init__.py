"""A run: its stages, what they share, and what decides whether one has to be run again."""
