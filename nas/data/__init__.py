"""Labelled images: where they come from, how they are split, and how they reach the device in batches."""

from nas.data.augment import Augment
from nas.data.balance import Limit
from nas.data.batches import Batches
from nas.data.images import Images
from nas.data.importance import ImportanceSampler
from nas.data.sources import SOURCES, load
from nas.data.splits import SplitFractions, Splits, channel_statistics, split

__all__ = [
    "SOURCES",
    "Augment",
    "Batches",
    "Images",
    "ImportanceSampler",
    "Limit",
    "SplitFractions",
    "Splits",
    "channel_statistics",
    "load",
    "split",
]
