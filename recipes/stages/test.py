"""The final word: accuracy on the test images, which nothing before this stage has seen."""

from __future__ import annotations

from typing import Any

from nas.device import place
from recipes.context import Context
from recipes.stages.export import trained_network


def run(context: Context) -> dict[str, Any]:
    """The share of the test images that each trained network classifies rightly."""
    images = context.splits.final_test()
    batches = context.evaluation_batches(images)
    accuracy = {}
    for network in context.outputs["train"]["networks"]:
        model = place(trained_network(context, context.found(network["id"])), context.device)
        accuracy[network["id"]] = context.task.evaluate(model, batches)
    return {"images": len(images), "accuracy": accuracy}
