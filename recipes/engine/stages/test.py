"""The final evaluation: accuracy on the test images, which nothing before this stage has seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from espalier.nas.data import BatchFactory, Images
from espalier.nas.device import place
from espalier.nas.run import RunFolder
from espalier.nas.space import SearchSpace
from espalier.nas.task import Classification
from espalier.recipes.engine.deployment import Deployment
from espalier.recipes.engine.ranking.rows import correlation_row
from espalier.recipes.engine.trained_network import trained_network
from espalier.recipes.records.networks import TestResult, TrainedNetwork
from espalier.recipes.records.ranking import Correlation


def run(
    networks: Sequence[TrainedNetwork],
    *,
    images: Images,
    space: SearchSpace,
    batches: BatchFactory,
    device: torch.device,
    deployment: Deployment | None,
    run: RunFolder,
    bootstrap_seed: int,
) -> TestResult:
    """The share of the test images that each network classifies correctly, and how well it was predicted.

    Networks compute in full precision here, as their exported files do. Where precision was searched, the files
    themselves are evaluated.

    Args:
        networks: trained alone and exported.
        images: for the test.
        space: builds the networks.
        batches: makes batches of the images.
        device: where networks compute.
        deployment: evaluates files where precision was searched.
        run: the run folder.
        bootstrap_seed: of the intervals of correlations.
    """
    prepared = batches.evaluation(images)
    accuracy = {}
    for network in networks:
        if deployment is not None:
            correct = deployment.correct(run.architecture(network.architecture) / "model.onnx", images)
            accuracy[network.id] = float(correct.mean())
            continue
        model = place(trained_network(network.architecture, space, run), device)
        accuracy[network.id] = Classification(len(images.classes)).evaluate(model, prepared, full_precision=True)
    correlations = tuple(_correlations(networks, accuracy, bootstrap_seed))
    return TestResult(images=len(images), accuracy=accuracy, correlations=correlations)


def _correlations(networks: Sequence[TrainedNetwork], accuracy: Mapping[str, float], seed: int) -> list[Correlation]:
    if len(networks) < 2:
        return []
    rows = []
    for name, first in networks[0].estimates.items():
        values = [network.estimates[name].value for network in networks]
        predicted = [math.nan if value is None else value for value in values]
        actual = [accuracy[network.id] for network in networks]
        higher = first.higher_is_better
        rows.append(correlation_row(name, predicted, actual, higher_is_better=higher, seed=seed))
    return rows
