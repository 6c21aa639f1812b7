"""Wing: make a given network sparse or smaller."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def load_pruned(folder: Path | str) -> nn.Module:
    """The pruned network in a folder that `nas prune` wrote; see `pruning.pruned_model.load_pruned`."""
    from pruning.pruned_model import load_pruned as load

    return load(folder)
