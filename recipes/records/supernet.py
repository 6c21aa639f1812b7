"""Results of the stages `data` and `supernet`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_serializer

from espalier.recipes.records.base import Record


class DataResult(Record):
    """The images, and how many of them serve each purpose."""

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    """`(channels, height, width)`."""
    splits: dict[str, int]
    """Number of images by split."""


class Epoch(Record):
    """One row of a training's log, with whatever else the training follows, such as `lr` and `seconds`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None]

    epoch: int
    loss: float | None
    """Mean over the steps, in nats."""
    accuracy: float | None = None
    """In [0, 1], where it was evaluated."""

    @model_serializer(mode="wrap")
    def _without_unknown(self, serialize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}


class SupernetEpoch(Epoch):
    """One row of a supernet's log, with the quantities that its strategy follows."""

    entropy: float | None = None
    """Mean normalised entropy of the gates, from 0, decided, to 1, uniform."""
    eigenvalue: float | None = None
    """Dominant eigenvalue of the validation loss in the architecture parameters."""

    @property
    def expected(self) -> dict[str, float]:
        """Expected costs under the strategy's distribution of architectures, by unit."""
        prefix = "expected_"
        extra = self.__pydantic_extra__
        return {key.removeprefix(prefix): v for key, v in extra.items() if key.startswith(prefix) and v is not None}


class Diagnosis(Record):
    """What a trained supernet looks like, and what that means. None is what its strategy does not have."""

    verdict: str
    learns: bool
    """Whether the strategy learns preferences at all."""
    choices: int
    """Choices with open operations of both kinds, with parameters and without."""
    parameter_free: float
    """How many of them prefer an operation without parameters."""
    by_chance: float
    """How many of them uniform gates are expected to."""
    entropy: float | None
    eigenvalue: float | None
    growth: float | None = None
    """Largest growth of the eigenvalue in five epochs, where it was followed."""
    growth_epoch: int | None = None
    """The last of those epochs."""
    gap: float
    """Validation loss minus training loss, in nats."""
    training_loss: float | None = None
    validation_loss: float | None = None
    training_accuracy: float
    validation_accuracy: float


class SupernetPart(Record):
    """One trained supernet: of the whole space, or of one part of a divided space."""

    name: str
    """`root` for the whole space; `root.0.1` for a part."""
    region: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    """Indices of the options that it covers, by choice."""
    rows: tuple[SupernetEpoch, ...]
    stopped: str | None = None
    """Why the training ended early, if it did."""
    diagnosis: Diagnosis | None = None


class Split(Record):
    """How the space of one supernet was divided in two or more."""

    choice: str
    groups: tuple[tuple[int, ...], ...]
    """Indices of the choice's options."""
    options: tuple[str, ...] = ()
    """Names of the options."""
    similarity: float | None
    """Similarity of gradients across the groups; None where the groups were drawn at random."""
    agreement: float | None
    """Share of bootstrap resamples that give this split; None where too few batches were measured."""
    distances: tuple[tuple[float, ...], ...] | None = None
    """Distances between the gradients of options."""
    rivals: dict[str, float] = Field(default_factory=dict)
    """Similarity across the best groups of the other choices."""
    repeats: int
    """Batches measured."""
    sample_passes: int
    """Images passed forward and backward."""


class SupernetResult(Record):
    """The trained supernets."""

    strategy: str
    parts: tuple[SupernetPart, ...]
    splits: dict[str, Split] = Field(default_factory=dict)
    """By the name of the supernet that was divided."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the supernets."""
        return tuple(part.name for part in self.parts)

    @property
    def has_entropy(self) -> bool:
        """Whether the strategy followed the entropy of its gates."""
        return any(row.entropy is not None for part in self.parts for row in part.rows)


class Comparison(Record):
    """A supernet evaluated on the same images without each of several candidates in turn."""

    candidates: tuple[str, ...]
    """What was removed: options or, where edges are dropped, edges."""
    accuracies: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    """Mean cross-entropy without each candidate."""
    images: int
    decided: str
    """The option that stays, or the edge that goes."""
    decided_by: Literal["accuracy", "loss"]
    margin: float
    """By how much the decided candidate leads the next."""
    standard_error: float
    """Of the margin."""


class Decision(Record):
    """One choice decided by perturbation."""

    part: str
    """The supernet."""
    method: str
    choice: str
    option: str
    """The option that is kept."""
    comparisons: tuple[Comparison, ...]
    """Of the options, one; of edges, one for each that was dropped."""
