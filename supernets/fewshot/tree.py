"""The tree of supernets: train, split, let the children inherit, down to the leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from pydantic import ValidationError

from espalier.nas.checkpoint import load_state, save_state
from espalier.nas.device import autocast
from espalier.nas.errors import UserError
from espalier.nas.files import read_json, write_json
from espalier.nas.gates import Gates
from espalier.nas.progress import Track, silent
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.nas.task import Batch
from espalier.nas.training import BatchSource
from espalier.supernets.fewshot.plan import FewShotSettings, Node, first_impossible_split, plan
from espalier.supernets.fewshot.similarity import GradientDistances
from espalier.supernets.fewshot.split import Split, option_counts, split_at_random, split_by_gradients, splittable
from espalier.supernets.trainer import SupernetTraining

Row = dict[str, float]


class MakeTraining(Protocol):
    """Makes a new supernet with its training, opened to the whole space."""

    def __call__(self, *, seed: int, epochs: int) -> SupernetTraining:
        """Weights, batches and gates drawn from `seed`; the learning rate falls over `epochs`."""
        ...


@dataclass(frozen=True)
class Leaf:
    """A trained supernet for one part of the space.

    Attributes:
        name: as in `Node`.
        region: the part.
        checkpoint: its whole training.
        horizon: the epochs over which its learning rate fell.
        rows: the numbers of each epoch of its own.
    """

    name: str
    region: Region
    checkpoint: Path
    horizon: int
    rows: list[Row]

    def restore(self, make_training: MakeTraining) -> SupernetTraining:
        """Its space with the trained weights (their moving average, where there is one), and its strategy."""
        training = make_training(seed=0, epochs=self.horizon)
        training.load_state_dict(load_state(self.checkpoint)["training"])
        training.space.load_state_dict(training.result.state_dict())
        return training


@dataclass(frozen=True)
class Tree:
    """A trained tree of supernets.

    Attributes:
        leaves: the supernets that were not split; their regions are disjoint and cover the space.
        splits: how each of the others was split, by name.
    """

    leaves: list[Leaf]
    splits: dict[str, Split]


def train_tree(
    make_training: MakeTraining,
    settings: FewShotSettings,
    folder: Path,
    *,
    seed: int,
    track: Track = silent,
    on_epoch: Callable[[str, Row], None] | None = None,
) -> Tree:
    """Train every supernet of the tree, one after another.

    A child inherits its parent's whole training (weights, batch-norm statistics, architecture parameters, optimisers,
    draws) with only its group's options left open. With `restart: final` the leaves start afresh instead.

    Args:
        make_training: makes each supernet.
        settings: the tree's shape.
        folder: takes a checkpoint of each supernet, written after each epoch, and a record of each split; a killed
            run continues from them with the same result.
        seed: from which each supernet and each split get their own.
        track: shows progress.
        on_epoch: called with a supernet's name and each epoch's row.

    Raises:
        UserError: the space has too few choices to split, or a file is damaged or of another space, or the space's
            constraints rule out all of a part.
        Diverged: a loss or a gradient is not finite.
    """
    regions: dict[str, Region] = {}
    tree = Tree([], {})
    nodes = plan(settings)
    seeds = np.random.SeedSequence(seed).generate_state(len(nodes)).tolist()
    for own_seed, node in zip(seeds, nodes, strict=True):
        training = make_training(seed=own_seed, epochs=node.horizon)
        if not regions:
            check_tree(training.space, settings)
            regions[node.name] = Region.whole(training.space)
        training.learns = not (settings.freeze_alphas and node.branches)
        rows = _train(training, node, regions[node.name], folder, track=track, on_epoch=on_epoch)
        if node.branches:
            split = _split(training, node, settings, folder, own_seed)
            tree.splits[node.name] = split
            regions |= {f"{node.name}.{i}": part for i, part in enumerate(split.children(regions[node.name]))}
        else:
            checkpoint = _checkpoint(folder, node.name)
            tree.leaves.append(Leaf(node.name, regions[node.name], checkpoint, node.horizon, rows))
    return tree


def check_tree(space: SearchSpace, settings: FewShotSettings) -> None:
    """Every path from root to leaf can split another choice at each level, whatever it has split before.

    Raises:
        UserError: at some level it may find none with options enough, or none with few enough to try all groups.
    """
    stuck = first_impossible_split(option_counts(space).values(), settings.branches)
    if stuck is None:
        return
    level, left = stuck
    groups = settings.branches[level]
    problem = f"split {level + 1} of {len(settings.branches)} may find no choice, not split before, "
    if enough := [count for count in left if count >= groups]:
        problem += f"whose groups can all be tried: {min(enough)} options have too many partitions into {groups}"
    else:
        problem += f"with at least {groups} options"
    raise UserError("supernet.few_shot.branches", problem, code="infeasible")


def _train(
    training: SupernetTraining,
    node: Node,
    region: Region,
    folder: Path,
    *,
    track: Track,
    on_epoch: Callable[[str, Row], None] | None,
) -> list[Row]:
    """Train the supernet from where it or its parent stands; its own rows, those of an earlier process included."""
    path = _checkpoint(folder, node.name)
    rows: list[Row] = []
    if path.exists():
        state = load_state(path)
        training.load_state_dict(state["training"])
        rows = state["rows"]
    elif node.start:
        training.load_state_dict(load_state(_checkpoint(folder, node.parent))["training"])
    training.strategy.region = region
    done, total = training.epoch - node.start, node.epochs - node.start
    for _ in track(range(done, total), f"supernet {node.name} ({training.strategy.name})", total, done=done):
        rows.append(training.run_epoch())
        if on_epoch:
            on_epoch(node.name, rows[-1])
        save_state(path, {"training": training.state_dict(), "rows": rows})
    return rows


def _split(training: SupernetTraining, node: Node, settings: FewShotSettings, folder: Path, seed: int) -> Split:
    """The split of a trained supernet, from its record if there is one."""
    path = folder / f"{node.name}.split.json"
    if path.exists():
        try:
            return Split.model_validate(read_json(path))
        except ValidationError as error:
            problem = "not the record of a split; delete it to measure again"
            raise UserError(str(path), problem, code="unreadable") from error
    names = splittable(training.space, training.strategy.region, node.branches)
    generator = torch.Generator().manual_seed(seed)
    if settings.split == "random":
        split = split_at_random(training.space, names, node.branches, generator)
    else:
        split = split_by_gradients(
            GradientDistances(
                training.space, training.strategy, _loss(training), _endless(training.batches), generator
            ),
            names,
            node.branches,
            repeats=settings.repeats,
            agreement=settings.agreement,
            seed=seed,
        )
    write_json(path, split.model_dump(mode="json"))
    return split


def _loss(training: SupernetTraining) -> Callable[[Batch, Gates], torch.Tensor]:
    def loss(batch: Batch, gates: Gates) -> torch.Tensor:
        x, y = batch
        with autocast(x.device):
            return training.task.loss(training.space(x, gates), y)

    return loss


def _endless(batches: BatchSource) -> Iterator[Batch]:
    while True:
        yield from batches


def _checkpoint(folder: Path, name: str) -> Path:
    return folder / f"{name}.pt"
