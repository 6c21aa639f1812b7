"""Structured pruning: remove whole channels, attention heads and residual blocks, which leaves a smaller network.

small = shrink(model, (3, 224, 224), Target("macs", share=0.5), importance=Taylor(gradients))
small.model, small.groups, small.structure
"""

from espalier.pruning.structured.groups import Group
from espalier.pruning.structured.importance import (
    BatchNormScale,
    Importance,
    Magnitude,
    Random,
    Saliency,
    Taylor,
    mean_gradients,
)
from espalier.pruning.structured.search import Target
from espalier.pruning.structured.shrink import Shrunk, groups_of, shrink

__all__ = [
    "BatchNormScale",
    "Group",
    "Importance",
    "Magnitude",
    "Random",
    "Saliency",
    "Shrunk",
    "Target",
    "Taylor",
    "groups_of",
    "mean_gradients",
    "shrink",
]
