"""Train the weights that all architectures share."""

from __future__ import annotations

from espalier.recipes.engine.context import Context
from espalier.recipes.engine.supernet_store import keep, new_training, plain_batches
from espalier.recipes.records.supernet import Diagnosis, SupernetEpoch, SupernetPart, SupernetResult
from espalier.recipes.records.supernet import Split as SplitRecord
from espalier.supernets.diagnosis import diagnose
from espalier.supernets.fewshot.split import Split
from espalier.supernets.fewshot.tree import train_tree
from espalier.supernets.trainer import SupernetTraining, train_supernet


def run(context: Context) -> SupernetResult:
    """Trains on the `train` split, and architecture parameters on `architecture`; a checkpoint each epoch."""
    settings = context.recipe.supernet
    assert settings is not None
    checkpoint = context.run / "checkpoints" / f"supernet-{context.keys['supernet']}.pt"
    if settings.few_shot is None:
        training = new_training(context)
        rows = train_supernet(
            training,
            checkpoint=checkpoint,
            track=context.track,
            on_epoch=lambda row: context.run.log("supernet", part="root", **row),
        )
        keep(context, "root", training)
        return SupernetResult(strategy=settings.strategy.name, parts=(_part(context, "root", training, rows),))
    tree = train_tree(
        lambda *, seed, epochs: new_training(context, seed=seed, epochs=epochs),
        settings.few_shot,
        checkpoint.with_suffix(""),
        seed=context.seed("few-shot"),
        track=context.track,
        on_epoch=lambda name, row: context.run.log("supernet", part=name, **row),
    )
    parts = []
    for leaf in tree.leaves:
        training = leaf.restore(lambda *, seed, epochs: new_training(context, seed=seed, epochs=epochs))
        keep(context, leaf.name, training)
        parts.append(_part(context, leaf.name, training, leaf.rows))
    return SupernetResult(
        strategy=settings.strategy.name,
        parts=tuple(parts),
        splits={name: _describe(context, split) for name, split in tree.splits.items()},
    )


def _part(context: Context, name: str, training: SupernetTraining, rows: list[dict[str, float]]) -> SupernetPart:
    """A trained supernet. It is judged by the images its architecture parameters saw, or else by new ones."""
    splits = context.splits
    found = diagnose(
        training.space,
        training.strategy,
        train=plain_batches(context, splits.train),
        validation=plain_batches(context, splits.architecture if training.strategy.learns else splits.selection),
        rows=rows,
        seed=context.seed("diagnosis"),
    )
    return SupernetPart(
        name=name,
        region=dict(training.strategy.region),
        rows=tuple(map(SupernetEpoch.model_validate, rows)),
        stopped=training.stop.reason(rows) if training.stop and training.epoch < training.settings.epochs else None,
        diagnosis=Diagnosis.model_validate(found.to_record()),
    )


def _describe(context: Context, split: Split) -> SplitRecord:
    """A split with the names of the options that it divides."""
    options = context.space.choices()[split.choice].options
    return SplitRecord(**split.model_dump(), options=tuple(map(str, options)))
