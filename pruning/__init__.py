"""Wing: make a given network sparse or smaller."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if __name__ != "espalier.pruning":
    raise ImportError("import espalier.pruning, not pruning: the folder is a part of the package espalier")

if TYPE_CHECKING:
    from torch import nn


def load_pruned(folder: Path | str) -> nn.Module:
    """The pruned network in a folder that `nas prune` wrote; see `espalier.pruning.pruned_model.load_pruned`."""
    from espalier.pruning.pruned_model import load_pruned as load

    return load(folder)
