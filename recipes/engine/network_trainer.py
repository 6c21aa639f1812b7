"""Training of one architecture alone, from fresh weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from espalier.nas.architecture import Architecture
from espalier.nas.checkpoint import save_weights
from espalier.nas.data import BatchFactory, Images, Splits
from espalier.nas.device import place
from espalier.nas.progress import Track
from espalier.nas.run import RunFolder
from espalier.nas.seeds import Seeds
from espalier.nas.space import SearchSpace
from espalier.nas.task import Classification
from espalier.nas.training import train
from espalier.pruning.training import SparseTraining
from espalier.recipes.config.sections.train import FinalTrainSettings
from espalier.recipes.engine.deployment import Deployment


@dataclass
class NetworkTrainer:
    """Trains on the `train` and `architecture` splits, evaluates on `selection`; a checkpoint each epoch.

    Attributes:
        settings: the recipe's section `train`.
        space: builds the networks.
        splits: the images.
        batches: makes batches of them.
        device: where networks are trained.
        deployment: makes weights sparse where sparsity is searched.
        seeds: of weights, batches and noise.
        run: the run folder, for weights, checkpoints and the log.
        key: the cache key of the stage, part of the checkpoints' names.
        track: shows progress.
    """

    settings: FinalTrainSettings
    space: SearchSpace
    splits: Splits
    batches: BatchFactory
    device: torch.device
    deployment: Deployment | None
    seeds: Seeds
    run: RunFolder
    key: str
    track: Track

    def train(self, architecture: Architecture, description: str) -> list[dict[str, float]]:
        """The rows of the training's log; the weights go into the architecture's folder.

        Raises:
            Diverged: a loss or a gradient is not finite.
        """
        settings, deployment, purpose = self.settings, self.deployment, f"train {architecture.id}"
        classes = len(self.splits.classes)
        with torch.random.fork_rng():
            torch.manual_seed(self.seeds(purpose))
            network = place(self.space.build(architecture), self.device)
            generator = self.seeds.generator(f"{purpose} data")
            batches = self.batches.training(self._images, settings.batch_size, generator, augment=settings.augment)
            steps = settings.epochs * len(batches)
            training = SparseTraining(
                network,
                settings,
                batches,
                task=Classification(classes, settings.label_smoothing),
                generator=generator,
                pruner=None if deployment is None else deployment.pruner(network, architecture, steps=steps),
            )
            selection = self.batches.evaluation(self.splits.selection)
            rows = train(
                training,
                evaluate=lambda model: Classification(classes).evaluate(model, selection),
                checkpoint=self.run / "checkpoints" / f"train-{self.key}-{architecture.id}.pt",
                track=self.track,
                description=description,
                on_epoch=lambda row: self.run.log("train", id=architecture.id, **row),
            )
        if deployment is not None:
            deployment.prune(training.result, architecture)  # a moving average has small numbers instead of zeros
        save_weights(self.run.architecture(architecture) / "model.safetensors", training.result)
        return rows

    @cached_property
    def _images(self) -> Images:
        """Those of the splits `train` and `architecture`."""
        if not len(self.splits.architecture):
            return self.splits.train
        parts = (self.splits.train, self.splits.architecture)
        return Images(
            torch.cat([part.pixels for part in parts]),
            torch.cat([part.labels for part in parts]),
            self.splits.classes,
            self.splits.train.name,
        )
