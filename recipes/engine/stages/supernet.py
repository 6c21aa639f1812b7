"""Train the weights that all architectures share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from espalier.nas.data import Splits
from espalier.nas.progress import Track
from espalier.nas.run import RunFolder
from espalier.nas.seeds import Seeds
from espalier.nas.space import SearchSpace
from espalier.recipes.config.sections.supernet import SupernetSettings
from espalier.recipes.engine.supernet_factory import SupernetFactory
from espalier.recipes.engine.supernet_store import SupernetStore
from espalier.recipes.records.supernet import Diagnosis, SupernetEpoch, SupernetPart, SupernetResult
from espalier.recipes.records.supernet import Split as SplitRecord
from espalier.supernets.diagnosis import diagnose
from espalier.supernets.fewshot.split import Split
from espalier.supernets.fewshot.tree import train_tree
from espalier.supernets.trainer import SupernetTraining, train_supernet

Row = dict[str, float]
Trained = tuple[str, SupernetTraining, list[Row]]
"""Name, training at its end, and the log's rows of one supernet."""


def run(
    settings: SupernetSettings,
    *,
    space: SearchSpace,
    supernets: SupernetFactory,
    store: SupernetStore,
    splits: Splits,
    seeds: Seeds,
    run: RunFolder,
    key: str,
    track: Track,
) -> SupernetResult:
    """Trains on the `train` split, and architecture parameters on `architecture`; a checkpoint each epoch.

    Args:
        settings: the recipe's section `supernet`.
        space: for the names of its options.
        supernets: makes supernets about to be trained.
        store: keeps the trained ones.
        splits: the images.
        seeds: of splits of the space and of diagnoses.
        run: the run folder, for checkpoints and the log.
        key: the stage's cache key, part of the checkpoints' names.
        track: shows progress.
    """
    checkpoint = run / "checkpoints" / f"supernet-{key}.pt"

    def log(part: str, row: Row) -> None:
        run.log("supernet", part=part, **row)

    divided: Mapping[str, Split] = {}
    trained: Iterable[Trained]
    if settings.few_shot is None:
        training = supernets.training()
        rows = train_supernet(training, checkpoint=checkpoint, track=track, on_epoch=partial(log, "root"))
        trained = [("root", training, rows)]
    else:
        tree = train_tree(
            supernets.training,
            settings.few_shot,
            checkpoint.with_suffix(""),
            seed=seeds("few-shot"),
            track=track,
            on_epoch=log,
        )
        divided = tree.splits
        # One after another: all of them at once may not fit in memory.
        trained = ((leaf.name, leaf.restore(supernets.training), leaf.rows) for leaf in tree.leaves)
    parts = []
    for name, training, rows in trained:
        store.keep(name, training)
        diagnosis = _diagnosis(training, rows, supernets, splits, seeds("diagnosis"))
        parts.append(_part(name, training, rows, diagnosis))
    return SupernetResult(
        strategy=settings.strategy.name,
        parts=tuple(parts),
        splits={name: _split(split, space) for name, split in divided.items()},
    )


def _diagnosis(
    training: SupernetTraining, rows: list[Row], supernets: SupernetFactory, splits: Splits, seed: int
) -> Diagnosis:
    """On the images that architecture parameters were trained on, or else on new ones."""
    learns = training.strategy.learns
    diagnosis = diagnose(
        training.space,
        training.strategy,
        train=supernets.diagnosis_batches(splits.train),
        validation=supernets.diagnosis_batches(splits.architecture if learns else splits.selection),
        rows=rows,
        seed=seed,
    )
    return Diagnosis.model_validate(diagnosis.to_record())


def _part(name: str, training: SupernetTraining, rows: list[Row], diagnosis: Diagnosis) -> SupernetPart:
    return SupernetPart(
        name=name,
        region=dict(training.strategy.region),
        rows=tuple(map(SupernetEpoch.model_validate, rows)),
        stopped=training.stop.reason(rows) if training.stop and training.epoch < training.settings.epochs else None,
        diagnosis=diagnosis,
    )


def _split(split: Split, space: SearchSpace) -> SplitRecord:
    """A split with the names of the options that it divides."""
    options = space.choices()[split.choice].options
    return SplitRecord(**split.model_dump(), options=tuple(map(str, options)))
