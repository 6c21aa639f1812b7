"""What people call the parts of their images."""

from __future__ import annotations

from collections.abc import Collection

TRAIN, TEST, VALIDATION = "train", "test", "validation"
SPLIT_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "test": TEST,
    "testing": TEST,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
}
"""The part for each name, in lower case."""


def held_back(splits: Collection[str]) -> str | None:
    """The part that is used as test images: the test part, or else the validation part."""
    return next((split for split in (TEST, VALIDATION) if split in splits), None)
