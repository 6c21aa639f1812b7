"""A network that is pruned without data: its inputs are described, and it is neither trained nor judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import nn

from espalier.nas.copying import copied
from espalier.nas.data import Normalisation
from espalier.nas.errors import UserError
from espalier.nas.network_inputs import (
    Input,
    call,
    named_outputs,
    parse_input,
    prediction,
    random_inputs,
    with_one_input,
    with_training_outputs,
)
from espalier.nas.task import Batch, Classification
from espalier.nas.training import BatchSource
from espalier.recipes.config.options import OwnSettings
from espalier.recipes.config.prune_settings import PruneSettings
from espalier.recipes.inputs.task_images import TaskImages
from espalier.recipes.inputs.task_score import Score

IMPORTANCES_WITHOUT_DATA = ("magnitude", "batch_norm", "random")
METHODS_WITHOUT_DATA = ("structured", "magnitude")
CLASSES = 1000
"""Of a network of timm, as in `nas export`: a user's own has its outputs."""


@dataclass
class WithoutData:
    """Stands in for the images of a task; see `espalier.recipes.inputs.task_images.TaskImages`.

    Attributes:
        settings: with the descriptions of the inputs.
    """

    settings: PruneSettings
    classes: tuple[str, ...] = ()
    training_count = 0

    def __post_init__(self) -> None:
        self.inputs: tuple[Input, ...] = tuple(parse_input(text) for text in self.settings.inputs or ())
        self._check_settings()

    @property
    def fingerprint(self) -> str:
        """Empty: there are no images."""
        return ""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of the first input, as `(channels, height, width)`: with ones in front if it is shorter."""
        channels, height, width = (1, 1, 1, *self.inputs[0].shape)[-3:]
        return channels, height, width

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of the one float input that `traced` networks take."""
        return self.inputs[0].shape if self._takes_one_float else (1,)

    def traced(self, network: nn.Module) -> nn.Module:
        """The network, or a copy, that takes one float input (see `with_one_input`)."""
        return network if self._takes_one_float else with_one_input(network, self.inputs)

    def doubt(self, network: nn.Module, *, is_fresh: bool) -> str | None:
        """None: there are no images to doubt it by."""
        return None

    @property
    def normalisation(self) -> Normalisation:
        """Inputs are taken as they are."""
        channels = self.image_shape[0]
        return Normalisation((0.0,) * channels, (1.0,) * channels)

    @property
    def task(self) -> Classification:
        """Only says which output is the prediction."""
        return Classification(len(self.classes), output=self.settings.outputs)

    def check(self, network: nn.Module) -> None:
        """Raises UserError where the network does not take these inputs; its outputs become the names of classes."""
        values = random_inputs(self.inputs, 2, torch.Generator().manual_seed(0))
        was_training = network.training
        try:
            with torch.no_grad():
                outputs = call(network.eval(), self.inputs, values)
        except UserError:
            raise
        except Exception as error:  # of any layer, or of the user's own code
            first = next(iter(str(error).splitlines()), type(error).__name__)
            problem = f"does not take the inputs {', '.join(map(str, self.inputs))} ({type(error).__name__}: {first})"
            raise UserError("model", problem, code="mismatch") from error
        finally:
            network.train(was_training)
        found = prediction(outputs, self.settings.outputs)
        self.classes = tuple(map(str, range(found.shape[1] if found.ndim > 1 else 1)))

    def training(self, generator: torch.Generator) -> BatchSource:
        """There is none."""
        self._missing("training")

    def plain(self, batch_size: int, *, count: int | None = None, generator: torch.Generator) -> BatchSource:
        """There is none."""
        self._missing(f"the method {self.settings.method.name}")

    def validate(self, network: nn.Module) -> float:
        """Nothing is validated."""
        return float("nan")

    def score(self, network: nn.Module) -> Score | None:
        """Nothing is scored."""
        return None

    @property
    def _takes_one_float(self) -> bool:
        return len(self.inputs) == 1 and self.inputs[0].is_float

    def _missing(self, what: str) -> NoReturn:
        raise UserError("inputs", f"{what} needs data, and a network with own inputs has none", code="conflict")

    def _check_settings(self) -> None:
        settings, problem = self.settings, "a network with own inputs is pruned without data"
        if settings.train.epochs or settings.prune_epochs:
            key = "train.epochs" if settings.train.epochs else "prune_epochs"
            raise UserError(key, f"must be 0: {problem}, so it cannot be trained", code="conflict")
        if settings.super_resolution is not None:
            raise UserError("super_resolution", f"needs images: {problem}", code="conflict")
        if settings.allocation == "obs":
            raise UserError("allocation", f"obs needs gradients: {problem}", code="conflict")
        name = settings.method.name
        if name not in METHODS_WITHOUT_DATA:
            raise UserError("method", f"{name} is trained: {problem}", allowed=METHODS_WITHOUT_DATA, code="conflict")
        if settings.is_structured:
            importance = settings.method.importance
            if not isinstance(importance, OwnSettings) and importance not in IMPORTANCES_WITHOUT_DATA:
                problem = f"{importance} needs gradients: {problem}"
                allowed = IMPORTANCES_WITHOUT_DATA
                raise UserError("method.importance", problem, allowed=allowed, code="conflict")


def traced(network: nn.Module, images: TaskImages) -> tuple[nn.Module, tuple[int, ...]]:
    """A network that takes one float input, and the shape of that: for what counts layers.

    Args:
        network: the network.
        images: of its task.
    """
    if isinstance(images, WithoutData):
        return images.traced(network), images.example_shape
    return network, images.image_shape


def has_training_outputs(network: nn.Module, image_shape: tuple[int, ...]) -> bool:
    """Whether a network returns more tensors in training mode, such as those of auxiliary heads."""
    x, counts = torch.zeros(2, *image_shape), []
    for one in (copied(network), with_training_outputs(network)):
        with torch.no_grad(), torch.random.fork_rng():
            counts.append(len(named_outputs(one.cpu().eval()(x))))
    return counts[0] != counts[1]


def inputs_of(images: TaskImages) -> tuple[int, int, int] | tuple[Input, ...]:
    """What `export_onnx` takes as the inputs of a network."""
    return images.inputs if isinstance(images, WithoutData) else images.image_shape


def some_batch(images: TaskImages, count: int) -> Batch | None:
    """A few training images and their targets, on the CPU; None where there are none."""
    if isinstance(images, WithoutData):
        return None
    x, y = next(iter(images.plain(count, count=count, generator=torch.Generator().manual_seed(0))))
    return x.cpu().contiguous(), y.cpu()
