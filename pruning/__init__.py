"""Wing: make a given network sparse or smaller."""

from pruning.pruned_model import load_pruned

__all__ = ["load_pruned"]
