"""Wing: make a given network sparse or smaller."""
