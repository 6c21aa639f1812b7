"""Labelled images: loading, splitting, and batches on the device."""

from espalier.nas.data.augment import Augment
from espalier.nas.data.balance import Limit
from espalier.nas.data.batch_factory import BatchFactory
from espalier.nas.data.batches import Batches
from espalier.nas.data.images import Images, Normalisation
from espalier.nas.data.importance import ImportanceSampler
from espalier.nas.data.sources import SOURCES, load
from espalier.nas.data.splits import SplitFractions, Splits, channel_statistics, split

__all__ = [
    "SOURCES",
    "Augment",
    "BatchFactory",
    "Batches",
    "Images",
    "ImportanceSampler",
    "Limit",
    "Normalisation",
    "SplitFractions",
    "Splits",
    "channel_statistics",
    "load",
    "split",
]
