"""Train chosen architectures alone, from fresh weights."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import torch

from nas.architecture import Architecture
from nas.checkpoint import save_weights
from nas.data import Images
from nas.device import place
from nas.files import write_json
from nas.measurement import Estimate
from nas.predictor import Predictor
from nas.training import Training, train
from predictors.ranking import rank_correlation
from recipes.context import Context
from recipes.stages.correlations import correlation_row


def run(context: Context) -> dict[str, Any]:
    """Trains on the `train` and `architecture` splits, judges on `selection`, and compares the predictors with it."""
    predictors = context.make_predictors(context.recipe.train.predictors)
    images = _training_images(context)
    networks = []
    chosen = choose(context)
    for index, (architecture, origin) in enumerate(chosen, start=1):
        network = _train_one(context, architecture, images, f"network {index} of {len(chosen)}")
        estimates = {name: predictor(architecture) for name, predictor in predictors.items()}
        network |= {"origin": origin, "estimates": {n: _estimate(e) for n, e in estimates.items()}}
        write_json(context.run.architecture(architecture) / "metrics.json", network)
        networks.append(network)
    for architecture, _ in chosen:
        _checkpoint(context, architecture).unlink(missing_ok=True)
    return {"networks": networks, "correlations": _correlations(context, predictors, networks)}


def choose(context: Context) -> list[tuple[Architecture, str]]:
    """Architectures spread evenly along the front, both its ends included, then random others as a control."""
    found = context.outputs["search"]
    settings = context.recipe.train
    options = {c["id"]: c["architecture"] for c in found["candidates"] if c["status"] == "complete"}
    front = found["front"]
    count = min(settings.front, len(front))
    picked = [front[round(i * (len(front) - 1) / max(1, count - 1))] for i in range(count)]
    rest = sorted(options.keys() - set(front))
    control = random.Random(context.seed("control")).sample(rest, min(settings.random, len(rest)))
    origins = [(id_, "front") for id_ in picked] + [(id_, "random") for id_ in control]
    return [(Architecture(options[id_]), origin) for id_, origin in origins]


def _train_one(context: Context, architecture: Architecture, images: Images, description: str) -> dict[str, Any]:
    settings = context.recipe.train
    purpose = f"train {architecture.id}"
    folder = context.run.architecture(architecture)
    with torch.random.fork_rng():
        torch.manual_seed(context.seed(purpose))
        network = place(context.space.build(architecture), context.device)
        generator = context.generator(f"{purpose} data")
        training = Training(
            network,
            settings,
            context.training_batches(images, settings.batch_size, settings.augment, generator),
            task=context.task_with(settings.label_smoothing),
            generator=generator,
        )
        selection = context.evaluation_batches(context.splits.selection)
        rows = train(
            training,
            evaluate=lambda model: context.task.evaluate(model, selection),
            checkpoint=_checkpoint(context, architecture),
            track=context.track,
            description=description,
            on_epoch=lambda row: context.run.log("train", id=architecture.id, **row),
        )
    save_weights(folder / "model.safetensors", training.result)
    cost = context.cost(architecture)
    return {
        "id": architecture.id,
        "notation": context.space.format(architecture),
        "diagram": context.space.diagram(architecture),
        "params": cost.params,
        "macs": cost.macs,
        "accuracy": rows[-1]["accuracy"],
        "images": len(context.splits.selection),
        "rows": rows,
    }


def _checkpoint(context: Context, architecture: Architecture) -> Path:
    return context.run / "checkpoints" / f"train-{context.keys['train']}-{architecture.id}.pt"


def _training_images(context: Context) -> Images:
    splits = context.splits
    if not len(splits.architecture):
        return splits.train
    parts = (splits.train, splits.architecture)
    return Images(
        torch.cat([part.pixels for part in parts]),
        torch.cat([part.labels for part in parts]),
        splits.classes,
        splits.train.name,
    )


def _correlations(
    context: Context, predictors: dict[str, Predictor], networks: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    if len(networks) < 2:
        return []
    accuracies = [network["accuracy"] for network in networks]
    rows = []
    for name, predictor in predictors.items():
        values = [network["estimates"][name]["value"] for network in networks]
        correlation = rank_correlation(
            [math.nan if value is None else value for value in values],
            accuracies,
            higher_is_better=predictor.higher_is_better,
            seed=context.seed("bootstrap"),
        )
        rows.append(correlation_row(name, correlation))
    return rows


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": estimate.value if estimate.status == "ok" else None,
        "unit": estimate.unit,
        "status": estimate.status,
        "higher_is_better": estimate.higher_is_better,
        "provenance": dict(estimate.provenance),
    }
