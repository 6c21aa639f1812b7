"""The final word: accuracy on the test images, which nothing before this stage has seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from espalier.nas.device import place
from espalier.recipes.engine.context import Context
from espalier.recipes.engine.ranking.rows import correlation_row
from espalier.recipes.engine.stages.export import trained_network
from espalier.recipes.records.networks import TestResult, TrainedNetwork
from espalier.recipes.records.ranking import Correlation


def run(context: Context) -> TestResult:
    """The share of the test images that each trained network classifies rightly, and how well it was predicted.

    Networks compute in full precision here, as their exported files do; where precision was searched, it is the files
    that compute.
    """
    images = context.splits.final_test()
    batches = context.evaluation_batches(images)
    networks = context.stages.networks
    accuracy = {}
    for network in networks:
        architecture = network.architecture
        if context.deployment is not None:
            right = context.deployment.right(context.run.architecture(architecture) / "model.onnx", images)
            accuracy[network.id] = float(right.mean())
            continue
        model = place(trained_network(context, architecture), context.device)
        accuracy[network.id] = context.task.evaluate(model, batches, full_precision=True)
    correlations = tuple(_correlations(context, networks, accuracy))
    return TestResult(images=len(images), accuracy=accuracy, correlations=correlations)


def _correlations(
    context: Context, networks: Sequence[TrainedNetwork], accuracy: Mapping[str, float]
) -> list[Correlation]:
    if len(networks) < 2:
        return []
    rows = []
    for name, first in networks[0].estimates.items():
        values = [network.estimates[name].value for network in networks]
        predicted = [math.nan if value is None else value for value in values]
        actual = [accuracy[network.id] for network in networks]
        rows.append(
            correlation_row(
                name,
                predicted,
                actual,
                higher_is_better=first.higher_is_better,
                seed=context.seed("bootstrap"),
            )
        )
    return rows
