"""The accuracy that candidates inherit from the supernets of a run."""

from __future__ import annotations

from collections.abc import Iterable

from espalier.nas.data import BatchFactory, Splits
from espalier.nas.data.batches import EVALUATION_BATCH
from espalier.nas.seeds import Seeds
from espalier.nas.task import Classification
from espalier.predictors.inherited import InheritedAccuracy
from espalier.recipes.engine.supernet_store import TrainedSupernet

CALIBRATION_IMAGES = 1000
"""Training images that batch-norm statistics are averaged over before an inherited evaluation."""


def inherited_accuracy(
    supernets: Iterable[TrainedSupernet], splits: Splits, batches: BatchFactory, seeds: Seeds
) -> InheritedAccuracy:
    """The accuracy of networks with the weights of these supernets, dense and in full precision."""
    # Statistics are averaged over batches, each counting the same, so all must be of one size.
    size = min(EVALUATION_BATCH, len(splits.train))
    count = min(CALIBRATION_IMAGES, len(splits.train)) // size * size
    return InheritedAccuracy(
        [(supernet.region, supernet.space) for supernet in supernets],
        calibration=batches.evaluation(splits.train.sample(count, seeds.generator("calibration"))),
        selection=batches.evaluation(splits.selection),
        task=Classification(len(splits.classes)),
        images=len(splits.selection),
    )
