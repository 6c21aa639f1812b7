"""The interface of everything that gives an architecture a number before it is trained."""

from __future__ import annotations

from typing import Protocol

from nas.architecture import Architecture
from nas.measurement import Estimate


class Predictor(Protocol):
    """A zero-cost score, a cost, an inherited supernet accuracy: one call, one `Estimate`.

    Attributes:
        name: as in recipes and reports. unit: of the value, `""` for a pure score.
        higher_is_better: the direction in which a larger value is expected to be good.
    """

    name: str
    unit: str
    higher_is_better: bool

    def __call__(self, architecture: Architecture) -> Estimate:
        """The estimate for one architecture of the predictor's space. Independent of the calls before it."""
        ...
