"""Whether a network's outputs stand for the classes of the images: a network in another order seems to know nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import yaml
from torch import Tensor

from espalier.nas.data.class_order import listed
from espalier.nas.intervals import Proportion

GAIN = 0.1
"""Accuracy that another order must gain at least."""
MOST = 0.5
"""Share of the images that another order must be right on where no weights are known."""
MOST_WRITTEN = 100
"""Names of classes that a suggestion writes out."""


def class_doubt(answers: Tensor, labels: Tensor, classes: Sequence[str], *, is_fresh: bool = False) -> str | None:
    """What is suspicious about a network's answers, with the cure; None where nothing is.

    Another order is suggested where it is clearly better on images that it was not chosen by: each half of the images
    is judged by the order that fits the other half best (the assignment with the most hits in the confusion matrix).

    Args:
        answers: the number of the network's largest output for each image, int64 `(n,)`.
        labels: the class of each image, int64 `(n,)`.
        classes: names of the classes in the order of the labels.
        is_fresh: no weights are known to have been given. The network may have read some itself: then another order
            must be right on most images.
    """
    right, count = Proportion.of(float((answers == labels).double().mean()), len(labels)), len(classes)
    halves = [torch.arange(len(labels)) % 2 == half for half in (0, 1)]
    hits = sum(
        int((_best_order(answers[~half], labels[~half], count)[answers[half]] == labels[half]).sum()) for half in halves
    )
    reordered = Proportion.of(hits / len(labels), len(labels))
    is_better = reordered.low > right.high and reordered.value - right.value > GAIN
    if is_better and (not is_fresh or reordered.low > MOST):
        order = [classes[label] for label in _best_order(answers, labels, count)]
        return (
            f"the network is right on {right.value:.1%} of {right.count} images, and on {reordered.value:.1%} if its "
            "outputs stand for the classes in another order; give the names in the order of its outputs, perhaps "
            f"'data.classes={_as_yaml(order)}'"
        )
    if not is_fresh and right.low <= 1 / count:
        return (
            f"the network is right on {right.value:.1%} of {right.count} images, which is chance with {count} classes; "
            "check its weights, the order of its classes (data.classes) and its normalisation (data.mean, data.std)"
        )
    return None


def _as_yaml(names: Sequence[str]) -> str:
    """Names as they are written on a command line, or the beginning of them where they would fill a screen."""
    if len(names) > MOST_WRITTEN:
        return listed(names)
    return yaml.safe_dump(list(names), default_flow_style=True, allow_unicode=True, width=math.inf).strip()


def _best_order(answers: Tensor, labels: Tensor, count: int) -> Tensor:
    """The class that each output stands for at the most hits, int64 `(count,)`."""
    from scipy.optimize import linear_sum_assignment

    confusion = np.zeros((count, count), dtype=np.int64)
    np.add.at(confusion, (answers.numpy(), labels.numpy()), 1)
    return torch.from_numpy(linear_sum_assignment(confusion, maximize=True)[1])
