"""Does the supernet's inherited accuracy rank architectures as training them alone does? Minutes, so marked slow."""

from __future__ import annotations

import pytest
import torch

from espalier.nas.data import Batches, Images, SplitFractions, load, split
from espalier.nas.device import place
from espalier.nas.region import Region
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.task import Classification
from espalier.nas.training import Training, TrainSettings, train
from espalier.predictors.inherited import InheritedAccuracy
from espalier.predictors.ranking import rank_correlation
from espalier.supernets.spos import SinglePathOneShot
from espalier.supernets.trainer import SupernetTraining, train_supernet

TASK = Classification(10)
CPU = torch.device("cpu")


def noisy_digits() -> Images:
    """The digits under noise of 90 grey levels, so that architectures differ by more than their last percent."""
    digits, _ = load("digits")
    noise = 90 * torch.randn(digits.pixels.shape, generator=torch.Generator().manual_seed(0))
    pixels = (digits.pixels.float() + noise).clamp(0, 255).to(torch.uint8)
    return Images(pixels, digits.labels, digits.classes, "noisy digits")


@pytest.mark.slow
def test_inherited_accuracy_ranks_as_training_alone_does() -> None:
    """Measured over 30 architectures and 2 seeds of the supernet: Kendall tau .37 and .40, Spearman .51 and .57."""
    splits = split(noisy_digits(), None, SplitFractions(train=0.5, architecture=0, selection=0.49, test=0.01), seed=0)

    def batches(images: Images, size: int, generator: torch.Generator | None = None) -> Batches:
        shuffle = generator is not None
        norm = {"mean": splits.mean, "std": splits.std}
        return Batches(images, size, **norm, shuffle=shuffle, generator=generator, drop_last=shuffle)

    def space() -> NasBench201:
        return NasBench201((1, 8, 8), 10, channels=4, cells=1)

    torch.manual_seed(0)
    supernet = space()
    place(supernet, CPU)
    generator = torch.Generator().manual_seed(0)
    settings = TrainSettings(epochs=80, lr=0.1, batch_size=64)
    train_supernet(
        SupernetTraining(
            supernet,
            SinglePathOneShot(supernet),
            settings,
            batches(splits.train, 64, generator),
            task=TASK,
            generator=generator,
            seed=0,
        )
    )
    calibration = splits.train.subset(torch.arange(750))
    inherited = InheritedAccuracy(
        [(Region.whole(supernet), supernet)],
        calibration=batches(calibration, 250),
        selection=batches(splits.selection, 250),
        task=TASK,
        images=len(splits.selection),
    )

    def accuracy_alone(network: torch.nn.Module) -> float:
        order = torch.Generator().manual_seed(1)
        settings = TrainSettings(epochs=15, lr=0.1, batch_size=64)
        source = batches(splits.train, 64, order)
        train(Training(network, settings, source, task=TASK, generator=order))
        return TASK.evaluate(network, batches(splits.selection, 250))

    draws = torch.Generator().manual_seed(7)
    architectures = [supernet.sample(draws) for _ in range(30)]
    alone = []
    for architecture in architectures:
        torch.manual_seed(1)
        alone.append(accuracy_alone(place(supernet.build(architecture), CPU)))
    correlation = rank_correlation([inherited(a).value for a in architectures], alone, seed=0)
    assert correlation.kendall > 0.15
    assert correlation.kendall_interval[0] > 0
