"""Train chosen architectures alone, from fresh weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from espalier.nas.architecture import Architecture
from espalier.nas.checkpoint import save_weights
from espalier.nas.data import Images
from espalier.nas.device import place
from espalier.nas.errors import UserError
from espalier.nas.files import write_json
from espalier.nas.training import train
from espalier.pruning.training import SparseTraining
from espalier.recipes.config.schema import FinalTrainSettings
from espalier.recipes.engine.baselines import SameSize, is_elastic, largest
from espalier.recipes.engine.budget import Budget
from espalier.recipes.engine.context import Context
from espalier.recipes.records.networks import NetworkEstimate, TrainedNetwork, TrainResult
from espalier.recipes.records.supernet import Epoch

CONTROL_TRIES = 10
"""Architectures that may be measured for each control under a budget."""
CONTROL_DRAWS = 10_000
"""Random architectures to look at for those that are affordable and new."""


def run(context: Context) -> TrainResult:
    """Trains on the `train` and `architecture` splits, judges on `selection`."""
    predictors = context.predictors.make(_settings(context).predictors)
    images = _training_images(context)
    chosen = choose(context)
    networks = []
    for index, (architecture, origin) in enumerate(chosen, start=1):
        rows = _train_one(context, architecture, images, f"network {index} of {len(chosen)}")
        cost = context.cost(architecture)
        network = TrainedNetwork(
            architecture=architecture,
            notation=context.space.format(architecture),
            origin=origin,
            diagram=tuple(context.space.diagram(architecture)),
            params=cost.params,
            macs=cost.macs,
            accuracy=rows[-1]["accuracy"],
            images=len(context.splits.selection),
            rows=tuple(map(Epoch.model_validate, rows)),
            estimates={name: NetworkEstimate.of(predictor(architecture)) for name, predictor in predictors.items()},
        )
        write_json(context.run.architecture(architecture) / "metrics.json", network.model_dump(mode="json"))
        networks.append(network)
    return TrainResult(networks=tuple(networks))


def choose(context: Context) -> list[tuple[Architecture, str]]:
    """What was selected from the supernet, then architectures spread evenly along the front of the search, both its
    ends included, then random ones of the space as a control.

    The random ones keep the limits on params and MACs, which cost nothing to know. In an elastic space the largest
    network, and for each of those chosen a random one of its size, are controls too. No two of all are isomorphic.

    Under a budget all of them keep it, measured as results are; of the front, others take the place of those that do
    not, and of controls there may be fewer.

    Raises:
        UserError: nothing on the front keeps the budget.
    """
    settings = _settings(context)
    budget = context.budget
    chosen: list[tuple[Architecture, str]] = []

    def add(architectures: Iterable[Architecture], origin: str, most: int) -> None:
        new = _distinct(context, architectures, [a for a, _ in chosen], most)
        chosen.extend((architecture, origin) for architecture in new)

    for selected in context.stages.select.chosen if context.stages.select else ():
        add([selected.architecture], selected.method, 1)
    front = _front(context)
    add(front, "front", len(front))
    if is_elastic(context.space):
        same_size = SameSize(context.space, context.generator("same size"))
        found = [architecture for architecture, _ in chosen]
        add(_kept(budget, [largest(context.space)], 1), "largest", 1)
        for architecture in found:
            add(_kept(budget, same_size(architecture), CONTROL_TRIES), "same size", 1)
    if settings.random:
        generator = context.generator("control")
        draws = (context.space.sample(generator) for _ in range(CONTROL_DRAWS))
        affordable = _kept(budget, filter(context.is_affordable, draws), CONTROL_TRIES * settings.random)
        add(affordable, "random", settings.random)
    return chosen


def _kept(budget: Budget | None, architectures: Iterable[Architecture], most: int) -> Iterator[Architecture]:
    """Those that keep the budget, of the first `most` where there is one."""
    return iter(architectures) if budget is None else filter(budget.keeps, itertools.islice(architectures, most))


def _front(context: Context) -> list[Architecture]:
    """Architectures spread evenly along the front of the search, no two of them isomorphic."""
    if context.stages.search is None:
        return []
    found = context.stages.search.front_architectures
    front = _distinct(context, found, [], len(found))
    while front:
        count = min(_settings(context).front, len(front))
        taken = [front[round(i * (len(front) - 1) / max(1, count - 1))] for i in range(count)]
        missed = [a for a in taken if context.budget is not None and not context.budget.keeps(a)]
        if not missed:
            return taken
        front = [architecture for architecture in front if architecture not in missed]
    if context.budget is not None and context.stages.select is None:
        raise UserError("budget", f"nothing on the front keeps it when measured as a result; {context.budget.miss()}")
    return []


def _settings(context: Context) -> FinalTrainSettings:
    settings = context.recipe.train
    assert settings is not None
    return settings


def _distinct(
    context: Context, architectures: Iterable[Architecture], but: Sequence[Architecture], most: int
) -> list[Architecture]:
    """The first `most` of each isomorphism class, without the classes of `but`."""
    seen = {context.space.isomorphism_class(architecture) for architecture in but}
    kept: list[Architecture] = []
    for architecture in architectures:
        if len(kept) >= most:
            break
        name = context.space.isomorphism_class(architecture)
        if name not in seen:
            seen.add(name)
            kept.append(architecture)
    return kept


def _train_one(
    context: Context, architecture: Architecture, images: Images, description: str
) -> list[dict[str, float]]:
    """The rows of the training's log; the weights are in the architecture's folder."""
    settings = _settings(context)
    purpose = f"train {architecture.id}"
    folder = context.run.architecture(architecture)
    with torch.random.fork_rng():
        torch.manual_seed(context.seed(purpose))
        network = place(context.space.build(architecture), context.device)
        generator = context.generator(f"{purpose} data")
        batches = context.batches.training(images, settings.batch_size, generator, augment=settings.augment)
        steps = settings.epochs * len(batches)
        deployment = context.deployment
        training = SparseTraining(
            network,
            settings,
            batches,
            task=context.task_with(settings.label_smoothing),
            generator=generator,
            pruner=None if deployment is None else deployment.pruner(network, architecture, steps=steps),
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
    if deployment is not None:
        deployment.prune(training.result, architecture)  # a moving average has small numbers for zeros
    save_weights(folder / "model.safetensors", training.result)
    return rows


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
