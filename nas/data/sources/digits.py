"""The handwritten digits that come with scikit-learn: 1,797 grey images of 8x8 pixels."""

from __future__ import annotations

from pathlib import Path

import torch

from espalier.nas.data.balance import Limit
from espalier.nas.data.images import Images
from espalier.nas.data.sources.fit import resize


def load(path: Path | None, test_path: Path | None, size: int | None, limit: Limit) -> tuple[Images, Images | None]:
    """The digits, with their 17 grey levels scaled to 0..255; there is no test set.

    Args:
        path: not used.
        test_path: not used.
        size: see `espalier.nas.data.load`.
        limit: see `espalier.nas.data.load`.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(digits.target.astype(np.int64))
    classes = tuple(str(name) for name in digits.target_names)
    rows = limit.rows(labels, classes)
    return Images(resize(grey[rows], size), labels[rows], classes, "digits"), None
