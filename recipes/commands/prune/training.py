"""Training in two phases, until the masks are fixed and after it; each is resumed from its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from espalier.nas.copying import copied
from espalier.nas.device import accelerator, place
from espalier.nas.progress import Track
from espalier.nas.run import RunFolder
from espalier.nas.seeds import seed_for
from espalier.nas.training import train
from espalier.pruning.distillation import Distillation
from espalier.pruning.pruner import Pruner
from espalier.pruning.training import SparseTraining
from espalier.recipes.config.prune_settings import PruneSettings
from espalier.recipes.inputs.task_images import TaskImages

RECALIBRATION_BATCH = 100
"""Images in a batch whose statistics are averaged, each batch counting the same."""


@dataclass(frozen=True)
class Phases:
    """Trains the network of one folder.

    Attributes:
        settings: how.
        images: on what.
        folder: keeps the checkpoints and the log.
        track: shows progress.
        teacher: the dense network, where the pruned one learns from it.
    """

    settings: PruneSettings
    images: TaskImages
    folder: RunFolder
    track: Track
    teacher: nn.Module | None

    def generator(self, purpose: str) -> torch.Generator:
        """A new CPU generator for one purpose."""
        return torch.Generator().manual_seed(seed_for(self.settings.seed, purpose))

    def run(self, phase: str, network: nn.Module, pruner: Pruner | None, *, epochs: int, **changes: Any) -> nn.Module:
        """Train for `epochs`, from the checkpoint of the phase if there is one.

        Args:
            phase: its name, in files and in progress.
            network: trained in place.
            pruner: chooses or holds the zeros; None where there are none.
            epochs: passes over the training images.
            changes: to the settings of the training.

        Raises:
            Diverged: the loss is no longer a finite number.
        """
        if not epochs:
            return network
        settings = self.settings.train.model_copy(update={"epochs": epochs, **changes})
        generator = self.generator(f"{phase} data")
        distill = self.settings.distill
        with torch.random.fork_rng():
            torch.manual_seed(seed_for(self.settings.seed, phase))
            training = SparseTraining(
                network,
                settings,
                self.images.training(generator),
                task=self.images.task,
                generator=generator,
                pruner=pruner,
                distillation=None
                if self.teacher is None
                else Distillation(self.teacher, distill, self.settings.temperature, self.settings.outputs),
            )
            train(
                training,
                evaluate=self.images.validate,
                checkpoint=self.checkpoint(phase),
                track=self.track,
                description=phase,
                on_epoch=lambda row: self.folder.log(phase, **row),
            )
        return training.result

    def checkpoint(self, phase: str) -> Path:
        """The file that a phase is resumed from."""
        return self.folder / "checkpoints" / f"{phase}.pt"

    def recalibrated(self, network: nn.Module) -> tuple[nn.Module, Mapping[str, float] | None]:
        """The network with new batch-norm statistics, if they improve the validation score.

        Returns:
            The better network, and both scores; None where it has no batch norms or none is asked for.
        """
        count = min(self.settings.recalibrate, self.images.training_count)
        if not count or not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules()):
            return network, None
        again = copied(network)
        update_bn(self.images.plain(RECALIBRATION_BATCH, count=count, generator=self.generator("recalibration")), again)
        scores = {"trained": self.images.validate(network), "recalibrated": self.images.validate(again.eval())}
        return (again if scores["recalibrated"] > scores["trained"] else network), scores


def on_accelerator(network: nn.Module) -> nn.Module:
    """The network where torch computes."""
    return place(network, accelerator())
