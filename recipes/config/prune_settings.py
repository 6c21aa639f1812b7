"""What `nas prune` can be told: the options of the command line and `key=value` beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from espalier.nas.data import Normalisation, SplitFractions
from espalier.nas.errors import UserError
from espalier.nas.network_inputs import parse_input
from espalier.nas.settings import Settings
from espalier.nas.training import TrainSettings
from espalier.recipes.config.options import Named, method
from espalier.recipes.config.prune_target import Goal
from espalier.recipes.config.registry import IMPORTANCES, PRUNERS, STRUCTURED
from espalier.recipes.config.sections.data import DataSettings
from espalier.recipes.config.sections.profile import ProfileSettings
from espalier.recipes.config.validation_errors import first_cause

NOT_THE_USERS = ("iterations", "model", "task", "batches")
"""Arguments of pruners that follow from the training."""


GIVEN_TO_IMPORTANCES = ("generator", "gradients", "saliencies")
"""Arguments of own importances that follow from the network and its images."""


class StructuredSettings(Settings):
    """Removal of channels, attention heads and blocks."""

    name: Literal["structured"]
    importance: Annotated[
        Literal["magnitude", "taylor", "mfac", "batch_norm", "random"],
        Named(IMPORTANCES, GIVEN_TO_IMPORTANCES, as_text=True),
    ] = "taylor"
    """What decides which channels go: |w|, |sum w g|, M-FAC's saliency, norms' scales, chance, or your own."""
    round_to: PositiveInt = 8
    """Widths become multiples of this, or of less where they are narrow."""
    least: float = Field(0.1, ge=0, le=1)
    """Share of every group that stays at least."""
    depth: bool = False
    """Whole residual blocks may go, too."""


class PruneDataSettings(DataSettings):
    """The images to train and judge on."""

    split: SplitFractions | None = None  # type: ignore[assignment]
    """Shares of the images; null holds a tenth back, and another to test on where there are no test images."""
    mean: tuple[float, ...] | None = None
    """Of each channel of pixels in 0..1, as the network was trained; null takes what it came with, or the images'."""
    std: tuple[PositiveFloat, ...] | None = None
    """The same for the standard deviation."""

    @property
    def normalisation(self) -> Normalisation | None:
        """That of the settings."""
        return None if self.mean is None or self.std is None else Normalisation(self.mean, self.std)

    @model_validator(mode="after")
    def _both_or_neither(self) -> PruneDataSettings:
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise ValueError("mean and std go together, with a number for each channel")
        return self


class SuperResolutionSettings(Settings):
    """Images to enlarge, instead of images to classify."""

    scale: int = Field(ge=2)
    """How many times as many pixels an image gets on each side."""
    low: Path | None = None
    """Folder of small images, `0001x2.png`; null makes them by PIL's bicubic filter."""
    patch: PositiveInt = 48
    """Side, in pixels, of the small patches to train on; networks are timed and exported at this size."""
    per_image: PositiveInt = 16
    """Patches of each training image in an epoch."""


class FineTuneSettings(TrainSettings):
    """Training after the weights are zero or gone; and, at a constant rate, while they become so."""

    epochs: NonNegativeInt = 10
    """Passes over the training images with the masks fixed."""
    batch_size: int = Field(128, ge=2)
    """Images in a step; batch norms need two."""
    lr: PositiveFloat = 0.01
    """Learning rate after the warm-up."""
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """How the learning rate falls to zero, step by step, or that it does not."""
    step: str | None = None
    """`FILE.py:NAME` of a function `(network, (images, classes))`: the loss, or the loss and the predictions."""

    @model_validator(mode="after")
    def _some_epochs_after_the_warm_up(self) -> FineTuneSettings:
        if self.warmup_epochs and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs must be fewer than the {self.epochs} epochs, not {self.warmup_epochs:g}")
        return self


def _a_goal(text: str) -> str:
    try:
        return str(Goal.parse(text))
    except UserError as error:
        raise ValueError(str(error).partition(": ")[2]) from error


class PruneSettings(Settings):
    """How a given network is pruned, trained and measured."""

    method: method(PRUNERS, more=(StructuredSettings,), without=NOT_THE_USERS)  # type: ignore[valid-type]
    """How weights or channels are chosen and when they go: a name, or `{name: issp, alpha: 0.9}` with its options."""
    target: Annotated[str, AfterValidator(_a_goal)] | None = None
    """`sparsity=0.9`, or what is left at most: `params=0.5`, `macs=0.5`, `latency_ms=3`. Not needed with a pattern."""
    pattern: str | None = Field(None, pattern=r"^\d{1,4}:[1-9]\d{0,3}$")
    """Zeros in each group of consecutive weights, such as 2:4 or 19:20; null for zeros anywhere."""
    allocation: Literal["uniform", "erk", "global", "lamp", "obs", "lgreco"] | None = None
    """How zeros are shared out over layers; null takes what the method was published with."""
    include: tuple[str, ...] = ("*",)
    """Patterns of the names of layers, of which one must match."""
    exclude: tuple[str, ...] = ()
    """Patterns of the names of layers that stay as they are."""
    prune_epochs: NonNegativeInt | None = None
    """Epochs until the masks are fixed; null takes as many as `train.epochs`, or none for methods of one shot."""
    distill: float = Field(0.0, ge=0, le=1)
    """Weight of the dense network's answers as targets, against that of the labels."""
    temperature: PositiveFloat = 4.0
    """Divides both networks' logits where they are compared."""
    recalibrate: NonNegativeInt = 1000
    """Training images that batch norms take their statistics from again, at the end; 0 leaves them as trained."""
    outputs: str | None = None
    """Which output is the prediction: a key, or a place from 0; null takes `logits`, `out` or the first tensor."""
    inputs: tuple[str, ...] | None = None
    """Of a network that takes no images, `name:shape:type` each; it is pruned without data and not trained."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of everything that is drawn at random."""
    super_resolution: SuperResolutionSettings | None = None
    """The task, where it is not classification; `data.path` is then a folder or zip file of large images."""
    data: PruneDataSettings
    train: FineTuneSettings = FineTuneSettings()
    profile: ProfileSettings = ProfileSettings()

    @property
    def is_structured(self) -> bool:
        """Whether channels are removed, instead of weights set to zero."""
        return bool(self.method.name == STRUCTURED)

    @property
    def goal(self) -> Goal:
        """The target, or the sparsity of the pattern."""
        if self.target is not None:
            return Goal.parse(self.target)
        assert self.pattern is not None
        zeros, group = map(int, self.pattern.split(":"))
        return Goal("sparsity", zeros / group)

    @field_validator("outputs", mode="before")
    @classmethod
    def _as_text(cls, place: Any) -> Any:
        return str(place) if isinstance(place, int) and not isinstance(place, bool) else place

    @field_validator("inputs")
    @classmethod
    def _described(cls, inputs: tuple[str, ...] | None) -> tuple[str, ...] | None:
        try:
            return None if inputs is None else tuple(str(parse_input(text)) for text in inputs)
        except UserError as error:
            raise ValueError(error.problem) from error

    @model_validator(mode="after")
    def _one_clear_target(self) -> PruneSettings:
        if self.target is None and self.pattern is None:
            raise ValueError("a target is missing, such as sparsity=0.9, macs=0.5 or latency_ms=3")
        if self.pattern is not None:
            if self.target is not None:
                raise ValueError("a pattern has its own sparsity, and no target beside it")
            if self.allocation is not None:
                raise ValueError("a pattern has the same sparsity in all layers, and no allocation beside it")
        if self.super_resolution is not None and (self.outputs is not None or self.train.step is not None):
            raise ValueError("super-resolution has its own loss and one output: no outputs and no train.step beside it")
        if self.is_structured:
            if self.pattern is not None or self.allocation is not None:
                raise ValueError("structured pruning removes whole channels, and takes no pattern and no allocation")
            if self.goal.quantity == "sparsity":
                raise ValueError("structured pruning leaves no zeros; its target is params=, macs= or latency_ms=")
        elif self.goal.quantity == "latency_ms":
            raise ValueError("zeros run no faster on common runtimes; a latency is reached by method structured")
        return self


def prune_settings(document: dict[str, Any]) -> PruneSettings:
    """Checked settings from a document.

    Raises:
        UserError: the first thing that is wrong.
    """
    try:
        return PruneSettings.model_validate(document)
    except ValidationError as error:
        cause = first_cause(error, PruneSettings)  # all that is wrong as a whole is about the target
        raise (cause.at("target") if cause.where == "recipe" else cause) from error
