"""Latency tables: the blocks of a space timed as they stand in its networks, and how far their sums can be trusted."""
