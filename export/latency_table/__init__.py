"""Latency tables: the blocks of a space, timed inside a network, and the accuracy of their sums."""
