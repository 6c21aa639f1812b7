"""The interface of predictors, which estimate something about an architecture without training it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from espalier.nas.architecture import Architecture
from espalier.nas.measurement import Estimate


class Predictor(Protocol):
    """A zero-cost score, a cost, or the accuracy inherited from a supernet.

    Attributes:
        name: as in recipes and reports.
        unit: of the value; `""` for a score without a unit.
        higher_is_better: the direction in which the value is expected to be good.
    """

    name: str
    unit: str
    higher_is_better: bool

    def __call__(self, architecture: Architecture) -> Estimate:
        """The estimate for one architecture of the predictor's space. It does not depend on earlier calls."""
        ...


History = Sequence[tuple[Architecture, float]]
"""Architectures with their true values, such as accuracies."""


class Learner(Predictor, Protocol):
    """A predictor that is fitted to true values: a surrogate, or a combination of scores."""

    def fit(self, history: History) -> None:
        """Fit to a history, and to nothing that was fitted before. Required before the first call.

        Raises:
            UserError: the history is too short to learn from.
        """
        ...

    def estimates(self, architectures: Sequence[Architecture]) -> list[Estimate]:
        """The estimates for several architectures, faster than one call for each."""
        ...
