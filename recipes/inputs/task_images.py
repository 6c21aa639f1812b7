"""What the images of a task offer: to train on, to validate on, and to test on at the end."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from espalier.nas.copying import copied
from espalier.nas.data import Normalisation
from espalier.nas.errors import UserError
from espalier.nas.network_inputs import prediction
from espalier.nas.task import Batch, Task, batch_loss
from espalier.nas.training import BatchSource
from espalier.recipes.inputs.task_score import Score

PROBED = 4
"""Images on which it is tried whether a network can be trained."""


class TaskImages(Protocol):
    """Images of one task. Test images are looked at by `score` alone, at the very end."""

    @property
    def fingerprint(self) -> str:
        """A short hash of the content of all images, and of their labels where they have some."""
        ...

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

    def doubt(self, network: nn.Module, *, is_fresh: bool) -> str | None:
        """Why a given network may have been made for other images, in one sentence; None where it fits.

        Args:
            network: left as it is.
            is_fresh: no weights are known to have been given.
        """
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

    def score(self, network: nn.Module) -> Score | None:
        """How good it is on the test images, in full precision as an exported network computes; None without data."""
        ...


def outputs_of(network: nn.Module, image_shape: tuple[int, int, int], output: str | None = None) -> tuple[int, ...]:
    """The shape of the prediction for two images.

    Args:
        network: in any mode, which is restored.
        image_shape: of one image.
        output: name or place of the prediction, where the network returns several tensors.

    Raises:
        UserError: the network does not take them, or returns no such tensor.
    """
    was_training = network.training
    try:
        with torch.no_grad():
            outputs = network.eval()(torch.zeros(2, *image_shape))
    except UserError:
        raise
    except Exception as error:  # of any layer, or of the user's own code
        first = next(iter(str(error).splitlines()), type(error).__name__)
        problem = f"does not take images of {'x'.join(map(str, image_shape))} ({first})"
        raise UserError("model", problem, code="mismatch") from error
    finally:
        network.train(was_training)
    return tuple(prediction(outputs, output).shape)


def check_training(network: nn.Module, task: Task, batch: Batch) -> None:
    """Check that a network can be trained: that its outputs in training mode have a loss with a gradient.

    Args:
        network: left as it is; a copy is run.
        task: defines the loss.
        batch: a few training images and their targets.

    Raises:
        UserError: it cannot.
    """
    where = "train.step" if getattr(task, "step", None) is not None else "model"
    probe = copied(network).train()
    if not any(parameter.requires_grad for parameter in probe.parameters()):
        raise UserError(
            "model", "has no weights that are trained; train.epochs=0 skips the training", code="unsupported"
        )
    try:
        with torch.enable_grad(), torch.random.fork_rng():
            loss, _ = batch_loss(task, probe, batch)
            loss.backward()
    except UserError:
        raise
    except Exception as error:  # of any layer, or of the user's own code
        first = next(iter(str(error).splitlines()), type(error).__name__)
        problem = f"cannot be trained on these images ({type(error).__name__}: {first})"
        raise UserError(where, problem, code="user_code" if where == "train.step" else "mismatch") from error
