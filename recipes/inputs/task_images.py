"""What the images of a task offer: to train on, to validate on, and to test on at the end."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from espalier.nas.data import Normalisation
from espalier.nas.errors import UserError
from espalier.nas.task import Task
from espalier.nas.training import BatchSource
from espalier.recipes.inputs.task_score import Score


class TaskImages(Protocol):
    """Images of one task. Test images are looked at by `score` alone, at the very end."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(channels, height, width)` of one input."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the network's outputs; none where it makes images."""
        ...

    @property
    def normalisation(self) -> Normalisation:
        """Of the network's inputs."""
        ...

    @property
    def task(self) -> Task:
        """What the network is trained for."""
        ...

    @property
    def training_count(self) -> int:
        """How many images there are to train on."""
        ...

    def check(self, network: nn.Module) -> None:
        """Raises UserError where the network does not do this for these images."""
        ...

    def training(self, generator: torch.Generator) -> BatchSource:
        """The training images in a new order each epoch, changed at random."""
        ...

    def plain(self, batch_size: int, *, count: int | None = None, generator: torch.Generator) -> BatchSource:
        """`count` of the training images, or all, unchanged, in a new order each epoch, full batches."""
        ...

    def validate(self, network: nn.Module) -> float:
        """How good a network is on the images held back from training; more is better."""
        ...

    def score(self, network: nn.Module) -> Score:
        """How good it is on the test images, in full precision as an exported network computes."""
        ...


def outputs_of(network: nn.Module, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """The shape of the outputs for two images.

    Raises:
        UserError: the network does not take them, or gives something else than a tensor.
    """
    was_training = network.training
    try:
        with torch.no_grad():
            outputs = network.eval()(torch.zeros(2, *image_shape))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:  # of any layer
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        problem = f"does not take images of {'x'.join(map(str, image_shape))} ({first})"
        raise UserError("model", problem, code="mismatch") from error
    finally:
        network.train(was_training)
    if not isinstance(outputs, torch.Tensor):
        raise UserError("model", f"returns a {type(outputs).__name__}, must return a tensor", code="mismatch")
    return tuple(outputs.shape)
