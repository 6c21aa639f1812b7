"""Images with classes: a pruned network learns from them and is judged by its accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from espalier.nas.copying import copied
from espalier.nas.data import Batches, BatchFactory, Normalisation, SplitFractions, Splits, split
from espalier.nas.data.class_order import listed, matched
from espalier.nas.device import accelerator, autocast, place
from espalier.nas.errors import UserError
from espalier.nas.intervals import Proportion
from espalier.nas.seeds import seed_for
from espalier.nas.task import Batch, Classification, Step
from espalier.nas.user_code import Reference, called
from espalier.recipes.config.prune_settings import PruneDataSettings, PruneSettings
from espalier.recipes.inputs.class_doubt import class_doubt
from espalier.recipes.inputs.task_images import PROBED, check_training, outputs_of
from espalier.recipes.inputs.task_score import Score

WITH_TEST_IMAGES = SplitFractions(train=0.9, architecture=0, selection=0.1)
WITHOUT_TEST_IMAGES = SplitFractions(train=0.8, architecture=0, selection=0.1, test=0.1)


def divided(data: PruneDataSettings, seed: int, classes: tuple[str, ...] = ()) -> Splits:
    """The images that a command is given, divided the same way by each for the same seed.

    Args:
        data: the section.
        seed: of the division.
        classes: names of the network's outputs, which the labels follow unless the section has its own; none where
            they are not known.

    Raises:
        UserError: the images cannot be read or divided, or are of other classes.
    """
    pool, test = data.load(seed_for(seed, "limit"))
    if data.classes is None:
        pool, test = matched(pool, classes), None if test is None else matched(test, classes)
    fractions = data.split or (WITH_TEST_IMAGES if test is not None else WITHOUT_TEST_IMAGES)
    return split(pool, test, fractions, seed=seed_for(seed, "split"))


def own_step(name: str | None) -> Step | None:
    """The step of the user's that a setting names; None for none.

    Raises:
        UserError: there is no such function, or its file raises.
    """
    if name is None:
        return None
    reference = Reference.parse(name)
    if reference is None:
        raise UserError("train.step", f"{name[:200]!r} is not of the form FILE.py:NAME")
    function = reference.resolve()
    if not callable(function):
        raise UserError("train.step", f"{name} is not a function", code="user_code")

    def step(network: nn.Module, batch: Batch) -> Any:
        return called(function, str(reference), network, batch)

    return step


@dataclass(frozen=True)
class ClassifiedImages:
    """Images with classes; see `espalier.recipes.inputs.task_images.TaskImages`.

    Attributes:
        settings: where they are.
        given: the normalisation of the given network; None takes that of the images.
        names: of the given network's outputs; none where they are not known.
    """

    settings: PruneSettings
    given: Normalisation | None
    names: tuple[str, ...] = ()

    @cached_property
    def splits(self) -> Splits:
        """The images, divided."""
        return divided(self.settings.data, self.settings.seed, self.names)

    @property
    def fingerprint(self) -> str:
        """A short hash of all images, labels and class names."""
        return self.splits.fingerprint

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(channels, height, width)`."""
        return self.splits.image_shape

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the network's outputs."""
        return self.splits.classes

    @cached_property
    def normalisation(self) -> Normalisation:
        """Of the network's inputs."""
        own = self.given or self.splits.normalisation
        if len(own.mean) != self.image_shape[0]:
            problem = f"was trained on {len(own.mean)} channels, the images have {self.image_shape[0]}"
            raise UserError("model", problem, code="mismatch")
        return own

    @property
    def training_count(self) -> int:
        """How many images there are to train on."""
        return len(self.splits.train)

    @cached_property
    def task(self) -> Classification:
        """What the network is trained for."""
        step = own_step(self.settings.train.step)
        return Classification(len(self.classes), self.settings.train.label_smoothing, self.settings.outputs, step)

    def check(self, network: nn.Module) -> None:
        """Raises UserError where the network does not give these classes for these images."""
        given, wanted = outputs_of(network, self.image_shape, self.settings.outputs), (2, len(self.classes))
        if given != wanted:
            has = f"{given[1]} outputs" if len(given) == 2 else f"outputs of shape {given[1:]}"
            problem = f"has {has} for an image, the images have {wanted[1]} classes: {listed(self.classes)}"
            raise UserError("model", problem, code="mismatch")
        if self.settings.train.epochs or self.settings.prune_epochs:
            x, y = next(iter(self.plain(PROBED, count=PROBED, generator=torch.Generator().manual_seed(0))))
            check_training(network, self.task, (x.cpu(), y.cpu()))

    def doubt(self, network: nn.Module, *, is_fresh: bool) -> str | None:
        """Why the network's outputs may stand for other classes than the labels, seen on the images held back."""
        images = self.splits.selection
        device = accelerator()
        judged = network if device.type == "cpu" else place(copied(network), device)
        was_training = judged.training
        judged.eval()
        with torch.no_grad(), autocast(device):
            batches = self._batches.evaluation(images)
            answers = [self.task.predictions(judged, batch).argmax(dim=1).cpu() for batch in batches]
        judged.train(was_training)
        return class_doubt(torch.cat(answers), images.labels, self.classes, is_fresh=is_fresh)

    def training(self, generator: torch.Generator) -> Batches:
        """The training images in a new order each epoch, changed at random."""
        train = self.settings.train
        return self._batches.training(self.splits.train, train.batch_size, generator, augment=train.augment)

    def plain(self, batch_size: int, *, count: int | None = None, generator: torch.Generator) -> Batches:
        """`count` of the training images, or all, unchanged, in a new order each epoch, full batches."""
        images = self.splits.train if count is None else self.splits.train.sample(count, generator)
        return self._batches.training(images, batch_size, generator)

    def validate(self, network: nn.Module) -> float:
        """The accuracy on the images held back from training."""
        return self.task.evaluate(network, self._batches.evaluation(self.splits.selection))

    def score(self, network: nn.Module) -> Score:
        """The accuracy on the test images, in full precision as an exported network computes."""
        images = self.splits.final_test()
        accuracy = Proportion.of(
            self.task.evaluate(network, self._batches.evaluation(images), full_precision=True), len(images)
        )
        return Score("accuracy", "", accuracy.value, accuracy.low, accuracy.high, len(images), images.name)

    @property
    def _batches(self) -> BatchFactory:
        return BatchFactory(self.normalisation, accelerator())
