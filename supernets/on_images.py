"""The short way: train a supernet on divided images, and choose from it. A recipe does the same, resumably."""

from __future__ import annotations

import torch

from espalier.nas.architecture import Architecture
from espalier.nas.data import BatchFactory, Splits
from espalier.nas.device import accelerator, place
from espalier.nas.errors import UserError
from espalier.nas.progress import Track, silent
from espalier.nas.seeds import seed_for
from espalier.nas.space import SearchSpace
from espalier.nas.task import Classification
from espalier.nas.training import TrainSettings
from espalier.supernets.evaluation import SupernetEvaluator
from espalier.supernets.selection.criterion import Criterion
from espalier.supernets.selection.perturbation import Perturbation
from espalier.supernets.strategy import Strategy
from espalier.supernets.trainer import SupernetTraining, train_supernet

SHARE_OF_LR = 0.1
"""Of the supernet's learning rate, in the training between decisions (the authors' code of perturbation selection)."""


def train_on_images(
    space: SearchSpace,
    strategy: Strategy,
    images: Splits,
    settings: TrainSettings = TrainSettings(),  # noqa: B008 - immutable
    *,
    seed: int = 0,
    track: Track = silent,
) -> SupernetTraining:
    """Train a supernet: its weights on `images.train`, architecture parameters on `images.architecture`.

    Args:
        space: the supernet; trained in place, on the accelerator if there is one.
        strategy: made for this space.
        images: divided images of its shape and classes.
        settings: of the training of the weights.
        seed: of batches and gates.
        track: shows progress.

    Returns:
        The finished training.

    Raises:
        UserError: the strategy cannot be used with the space or the images.
        Diverged: the loss is not finite.
    """
    place(space, accelerator())
    training = _training(space, strategy, images, settings, seed=seed)
    train_supernet(training, track=track)
    return training


def select_by_perturbation(
    trained: SupernetTraining,
    images: Splits,
    *,
    epochs: int = 5,
    criterion: Criterion = "auto",
    seed: int = 0,
    track: Track = silent,
) -> Architecture:
    """Choose an architecture by perturbation (see `Perturbation`), judged on `images.selection`.

    Args:
        trained: the supernet, which is trained further between decisions.
        images: those that it was trained on.
        epochs: of training between two decisions.
        criterion: what decides: the accuracy, the loss, or with `auto` the accuracy where its difference is
            significant and else the loss.
        seed: of the order of the decisions, of batches and gates.
        track: shows progress.

    Raises:
        UserError: the strategy of the supernet learns no preferences between options.
        Diverged: a loss is not finite.
    """
    if not trained.strategy.learns:
        problem = f"{trained.strategy.name} learns no preferences, which perturbation starts from"
        raise UserError("strategy", problem, code="unsupported")
    generator = torch.Generator().manual_seed(seed_for(seed, "mixed"))
    shuffled = images.selection.sample(len(images.selection), generator)  # batch statistics need all classes
    batches = BatchFactory(images.normalisation, accelerator()).evaluation(shuffled)
    selection = Perturbation(
        trained.space,
        trained.strategy,
        SupernetEvaluator(trained.space, batches, seed=seed_for(seed, "noise")),
        criterion=criterion,
        interval=epochs,
        seed=seed_for(seed, "order of decisions"),
    )
    changes = {"schedule": "constant", "warmup_epochs": 0, "ema_decay": None, "epochs": max(1, selection.total_epochs)}
    lr = trained.settings.lr * SHARE_OF_LR
    settings = trained.settings.model_copy(update={**changes, "lr": lr})
    tuning = _training(
        trained.space, trained.strategy, images, settings, seed=seed_for(seed, "tuning"), follows=trained.epoch
    )

    def tune(count: int) -> None:
        for _ in range(count):
            tuning.run_epoch()

    return selection.run(tune, track=track)


def _training(
    space: SearchSpace,
    strategy: Strategy,
    images: Splits,
    settings: TrainSettings,
    *,
    seed: int,
    follows: int | None = None,
) -> SupernetTraining:
    generator = torch.Generator().manual_seed(seed_for(seed, "data"))
    batches = BatchFactory(images.normalisation, accelerator())
    size, augment = settings.batch_size, settings.augment
    validation = None
    if strategy.learns and len(images.architecture):
        validation = batches.training(images.architecture, size, generator, augment=augment)
    return SupernetTraining(
        space,
        strategy,
        settings,
        batches.training(images.train, size, generator, augment=augment),
        validation=validation,
        task=Classification(len(images.classes), settings.label_smoothing),
        generator=generator,
        seed=seed_for(seed, "paths"),
        follows=follows,
    )
