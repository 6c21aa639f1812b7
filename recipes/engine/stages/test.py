"""The final word: accuracy on the test images, which nothing before this stage has seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from espalier.nas.architecture import Architecture
from espalier.nas.device import place
from espalier.recipes.engine.context import Context
from espalier.recipes.engine.ranking.rows import correlation_row
from espalier.recipes.engine.stages.export import trained_network


def run(context: Context) -> dict[str, Any]:
    """The share of the test images that each trained network classifies rightly, and how well it was predicted.

    Networks compute in full precision here, as their exported files do; where precision was searched, it is the files
    that compute.
    """
    images = context.splits.final_test()
    batches = context.evaluation_batches(images)
    networks = context.outputs["train"]["networks"]
    accuracy = {}
    for network in networks:
        architecture = Architecture(network["architecture"])
        if context.deployment is not None:
            right = context.deployment.right(context.run.architecture(architecture) / "model.onnx", images)
            accuracy[network["id"]] = float(right.mean())
            continue
        model = place(trained_network(context, architecture), context.device)
        accuracy[network["id"]] = context.task.evaluate(model, batches, full_precision=True)
    return {"images": len(images), "accuracy": accuracy, "correlations": _correlations(context, networks, accuracy)}


def _correlations(
    context: Context, networks: list[dict[str, Any]], accuracy: Mapping[str, float]
) -> list[dict[str, Any]]:
    if len(networks) < 2:
        return []
    rows = []
    for name, first in networks[0]["estimates"].items():
        values = [network["estimates"][name]["value"] for network in networks]
        predicted = [math.nan if value is None else value for value in values]
        actual = [accuracy[network["id"]] for network in networks]
        rows.append(
            correlation_row(
                name,
                predicted,
                actual,
                higher_is_better=first["higher_is_better"],
                seed=context.seed("bootstrap"),
            )
        )
    return rows
