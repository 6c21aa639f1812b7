"""The interface of everything that gives an architecture a number before it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from espalier.nas.architecture import Architecture
from espalier.nas.measurement import Estimate


class Predictor(Protocol):
    """A zero-cost score, a cost, an inherited supernet accuracy: one call, one `Estimate`.

    Attributes:
        name: as in recipes and reports.
        unit: of the value, `""` for a pure score.
        higher_is_better: the direction in which a larger value is expected to be good.
    """

    name: str
    unit: str
    higher_is_better: bool

    def __call__(self, architecture: Architecture) -> Estimate:
        """The estimate for one architecture of the predictor's space. Independent of the calls before it."""
        ...


History = Sequence[tuple[Architecture, float]]
"""Architectures and what came true of them, such as accuracies."""


class Learner(Predictor, Protocol):
    """A predictor that learns from what came true: a surrogate, a fitted combination of scores."""

    def fit(self, history: History) -> None:
        """Learn from the history, and from nothing before it. It can be asked only after that.

        Raises:
            UserError: the history is too short to learn from.
        """
        ...

    def estimates(self, architectures: Sequence[Architecture]) -> list[Estimate]:
        """What calling it with each of the architectures gives, faster."""
        ...
