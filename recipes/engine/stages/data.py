"""The images that a run works on."""

from __future__ import annotations

from typing import Any

from espalier.recipes.engine.context import Context


def run(context: Context) -> dict[str, Any]:
    """What the images are and how many serve what."""
    splits = context.splits
    parts = {"train": splits.train, "architecture": splits.architecture, "selection": splits.selection}
    return {
        "name": splits.train.name,
        "classes": list(splits.classes),
        "image_shape": list(splits.image_shape),
        "splits": {name: len(images) for name, images in parts.items()},
    }
