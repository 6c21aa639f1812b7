"""Images that occur more than once: among training and test images they make a network look better than it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from espalier.nas.data.images import Images

DIGEST_BYTES = 16


def digests(images: Images) -> Iterator[bytes]:
    """A hash of each image's pixels.

    Args:
        images: of one shape.
    """
    pixels = images.pixels.cpu().contiguous().numpy()
    return (hashlib.blake2b(image.data, digest_size=DIGEST_BYTES).digest() for image in pixels)


def count_shared(images: Images, others: Images) -> int:
    """How many of the images have the same pixels as one of the others, whatever their classes.

    Args:
        images: counted.
        others: compared with; of the same shape.
    """
    if not len(images) or not len(others):
        return 0
    known = set(digests(others))
    return sum(digest in known for digest in digests(images))
