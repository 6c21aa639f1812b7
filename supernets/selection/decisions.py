"""Records of decisions, and of the numbers they rest on."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Comparison(_Record):
    """Evaluations of a supernet on the same images, each with one candidate removed."""

    candidates: tuple[int, ...]
    """What was removed: indices of options or, where edges are dropped, of inputs."""
    accuracies: tuple[float, ...]
    """Without each candidate, a multiple of 1 / images."""
    losses: tuple[float, ...]
    """Mean cross-entropy without each candidate."""
    images: int
    """Number of images of each evaluation."""
    decided: int
    """The option that stays, whose removal hurts most, or the edge that goes, whose removal hurts least."""
    decided_by: Literal["accuracy", "loss"]
    """Which of the two criteria decided."""
    margin: float
    """By how much of it the decided candidate leads the next."""
    standard_error: float
    """Of the margin, if there were no difference: ||d|| / images of the differences d between the two on each image."""


class Decision(_Record):
    """One choice decided."""

    choice: str
    option: int
    """Index of the option that is kept."""
    comparisons: tuple[Comparison, ...]
    """Of the options, one; of edges, one for each that was dropped."""
