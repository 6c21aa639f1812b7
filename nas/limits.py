"""The largest sizes and numbers that are accepted, with the reason for each: far above use, far below harm.

They catch slips of the finger (`trials=1000000000`) and files that are made to fill memory. A limit goes by the name of
the key or option, and holds for recipes, for `key=value` and for the options of commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """The largest value of a number.

    Attributes:
        most: the value.
        reason: why not more, in a few words.
    """

    most: int
    reason: str


FILE_BYTES = 1 << 20
"""Of a YAML file. The longest recipe that ships has 3 kB."""
YAML_VALUES = 20_000
"""Values in a YAML document, each counted as often as an alias repeats it: nested aliases grow exponentially."""
YAML_DEPTH = 50
"""Levels of a YAML document; a recipe has five."""
TEXT = 10_000
"""Characters of one text in YAML."""
MESSAGE = 1_500
"""Characters of an error message; longer values are shortened in the middle."""

WHOLE_NUMBER = Limit(10**9, "counts beyond a thousand million are never reached")
"""Of whole numbers whose names have no limit of their own."""
NUMBER = Limit(10**18, "nothing here is measured in larger numbers")
"""Of all other numbers, and the same below zero."""

_EPOCHS = Limit(100_000, "no schedule is longer")
_IMAGES = Limit(1_000_000, "a batch is in memory as a whole")
_SECONDS = Limit(86_400, "one network is timed for a day at most")
_RATE = Limit(10**9, "training diverges")
_DECAY = Limit(1_000, "a step would turn the weights round")
_WIDTH = Limit(16_384, "wider layers have thousands of millions of weights")
_CELLS = Limit(200, "deeper networks are not trained, and take minutes to build")
_ROUNDS = Limit(1_000, "the interval gets no narrower")
_DRAWS = Limit(10_000_000, "more architectures do not fit into memory")

LIMITS: Mapping[str, Limit] = {
    "seed": Limit(2**63 - 1, "seeds have 64 bits"),
    # Training.
    "epochs": _EPOCHS,
    "warmup_epochs": _EPOCHS,
    "prune_epochs": _EPOCHS,
    "leaf_epochs": _EPOCHS,
    "split_epochs": _EPOCHS,
    "alpha_warmup": _EPOCHS,
    "batch_size": _IMAGES,
    "lr": _RATE,
    "alpha_lr": _RATE,
    "weight_decay": _DECAY,
    "alpha_weight_decay": _DECAY,
    "branches": Limit(64, "each branch is a supernet of its own"),
    "random_paths": Limit(1_000, "a step trains every path"),
    # Spaces.
    "cells": _CELLS,
    "depths": _CELLS,
    "channels": _WIDTH,
    "widths": _WIDTH,
    "embeddings": _WIDTH,
    "head_size": _WIDTH,
    "heads": Limit(1_024, "no transformer has more"),
    "width": Limit(64, "a layer grows with its square"),
    "ratios": Limit(64, "wider layers are not trained"),
    "expansions": Limit(64, "wider layers are not trained"),
    "kernels": Limit(255, "larger than the images"),
    "patch": Limit(16_384, "larger than the images"),
    "classes": Limit(1_000_000, "the classifier has a row of weights for each"),
    # Images.
    "size": Limit(16_384, "an image of this side has 800 MB"),
    "image_size": Limit(16_384, "an image of this side has 800 MB"),
    "scale": Limit(1_000_000, "counts and pixels grow with it"),
    "per_image": Limit(100_000, "an epoch has as many steps for each image"),
    # Searches.
    "trials": Limit(1_000_000, "the study is in memory as a whole"),
    "population_size": Limit(100_000, "the population is in memory as a whole"),
    "sample_size": Limit(100_000, "it is drawn from the population"),
    "proposals": Limit(100_000, "each proposal is judged"),
    "candidates": _DRAWS,
    "among": _DRAWS,
    "samples": _DRAWS,
    "front": Limit(10_000, "each of the front is trained alone"),
    "random": Limit(10_000, "each is trained alone"),
    # Measurements.
    "threads": Limit(1_024, "no processor has more cores"),
    "concurrency": Limit(1_024, "each caller is a thread"),
    "batch": _IMAGES,
    "sessions": _ROUNDS,
    "repeats": Limit(10_000, "the mean gets no more exact"),
    "networks": Limit(10_000, "each is written and timed"),
    "calibrate": Limit(10_000, "each is written and timed"),
    "depth": Limit(100, "no module's name has more parts"),
    "seconds": _SECONDS,
    "search_seconds": _SECONDS,
    "limit_s": Limit(10_000_000, "four months for one score"),
    "max_drop": Limit(1, "a share is 1 at most"),
    # Pruning and quantisation.
    "increments": Limit(1_000_000, "each is a training step"),
    "rows": Limit(65_536, "each is a gradient of the whole network in memory"),
    "block": Limit(65_536, "memory grows with its square"),
    "temperature": _RATE,
}
"""By the name of the key or option, wherever it stands."""


def limit_of(name: str, *, whole: bool) -> Limit:
    """The largest value of a number of that name.

    Args:
        name: of its key, or of the option of a command as Python spells it.
        whole: whether it is a whole number.
    """
    return LIMITS.get(name, WHOLE_NUMBER if whole else NUMBER)
