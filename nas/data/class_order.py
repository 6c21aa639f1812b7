"""The order of classes: a network's outputs and the labels of images must mean the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from espalier.nas.data.images import Images
from espalier.nas.errors import UserError

WHERE = "data.classes"
MOST_LISTED = 20
"""Names that a message lists."""


def in_order(images: Images, names: Sequence[str]) -> Images:
    """The same images, with labels that count the classes in another order.

    Args:
        images: whose source has names for its classes, or mere numbers, which then get the names one by one.
        names: all classes, in the order of a network's outputs.

    Raises:
        UserError: these are not the classes of the images.
    """
    if len(set(names)) < len(names):
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise UserError(WHERE, f"names {twice!r} twice", code="invalid")
    if len(names) != len(images.classes):
        problem = f"has {len(names)} names, the images have {len(images.classes)} classes: {listed(images.classes)}"
        raise UserError(WHERE, problem, code="mismatch")
    if set(names) != set(images.classes):
        if are_numbers(images.classes):
            return replace(images, classes=tuple(names))
        unknown = next(name for name in names if name not in images.classes)
        raise UserError(WHERE, f"{unknown!r} is no class of the images", allowed=images.classes, given=unknown)
    if tuple(names) == images.classes:
        return images
    places = torch.tensor([names.index(name) for name in images.classes])
    return replace(images, labels=places[images.labels], classes=tuple(names))


def matched(images: Images, names: Sequence[str]) -> Images:
    """The same images, with their classes in the order of a network that knows the names of its outputs.

    Where either knows its classes by number only, or the network has another number of outputs, labels stay as they
    are.

    Args:
        images: of any source.
        names: of the network's outputs; none where they are not known.

    Raises:
        UserError: the network has as many outputs, but for other classes.
    """
    if len(names) != len(images.classes) or are_numbers(names):
        return images
    if set(names) != set(images.classes) and not are_numbers(images.classes):
        problem = (
            f"the network's classes are {listed(names)}, those of the images {listed(images.classes)}; "
            "write the names of the images' classes in the order of the network's outputs"
        )
        raise UserError(WHERE, problem, code="mismatch")
    return in_order(images, names)


def are_numbers(names: Sequence[str]) -> bool:
    """Whether classes have no names but their numbers, 0, 1, and so on."""
    return list(names) == [str(index) for index in range(len(names))]


def listed(names: Sequence[str]) -> str:
    """Names as a list in YAML, shortened if there are many."""
    shown = ", ".join(names[:MOST_LISTED])
    more = len(names) - MOST_LISTED
    return f"[{shown}, and {more} more]" if more > 0 else f"[{shown}]"
