"""The images that a run works on."""

from __future__ import annotations

from espalier.nas.data import Splits
from espalier.recipes.records.supernet import DataResult


def run(splits: Splits) -> DataResult:
    """What the images are, and how many of them serve each purpose."""
    parts = {"train": splits.train, "architecture": splits.architecture, "selection": splits.selection}
    return DataResult(
        name=splits.train.name,
        classes=splits.classes,
        image_shape=splits.image_shape,
        splits={name: len(images) for name, images in parts.items()},
    )
