"""Which choice of a region to split, and into which groups: measured until the answer is stable, or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from espalier.nas.choices import InputChoice
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.supernets.fewshot.partition import (
    TIE,
    Groups,
    best_cut,
    few_enough,
    first_smallest,
    near_equal,
    pair_similarity,
)

MIN_REPEATS = 8
"""With fewer repeats a bootstrap is meaningless."""
RESAMPLES = 400
INTERVAL = (0.025, 0.975)


class Split(BaseModel):
    """A region's split, and the measurements it rests on."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    choice: str
    groups: Groups
    """Option indices: each group becomes the open options of one child."""
    similarity: float | None = None
    """Mean similarity of options across the cut, the smallest there is; null where the split was drawn."""
    distances: tuple[tuple[float, ...], ...] | None = None
    """D of the choice's options, the mean over repeats; on the diagonal the share of repeats with a zero gradient."""
    repeats: int = 0
    """Batches measured."""
    agreement: float | None = None
    """Share of bootstrap resamples of the repeats in which this choice is the best and these are its best groups; null
    where there were too few repeats to tell, or the split was drawn."""
    rivals: dict[str, float] = {}
    """Similarity across the cut of the other choices, as far as they were measured."""
    sample_passes: int = 0
    """Images passed forward and backward for it."""

    def children(self, region: Region) -> list[Region]:
        """The region once for each group, disjoint parts that cover it."""
        return [region.restrict(self.choice, group) for group in self.groups]


class Measure(Protocol):
    """Repeated measurements of D, such as `GradientDistances`."""

    sample_passes: int

    def __call__(self, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """One repeat: D (options, options) of each of these choices."""
        ...


def option_counts(space: SearchSpace) -> dict[str, int]:
    """The number of options of each choice, except choices between the outputs of layer choices.

    These are never split: the strengths of their edges decide them.
    """
    return {
        name: len(choice.options)
        for name, choice in space.choices().items()
        if not (isinstance(choice, InputChoice) and choice.edges)
    }


def splittable(space: SearchSpace, region: Region, branches: int) -> tuple[str, ...]:
    """The choices that are unsplit in the region, with enough options, but few enough to try all groups."""
    return tuple(
        name
        for name, count in option_counts(space).items()
        if branches <= count == len(region[name]) and few_enough(count, branches)
    )


def split_by_gradients(
    measure: Measure, names: Sequence[str], branches: int, *, repeats: int, agreement: float, seed: int
) -> Split:
    """Split the choice whose groups agree least: the smallest mean similarity across its best cut.

    Choices race: after the first repeats, those go on whose bootstrap interval (95 %) of the cut reaches that of the
    best. It ends when, in a share `agreement` of the resamples, the same choice wins with the same groups.

    Args:
        measure: gives D.
        names: the choices to consider.
        branches: number of groups.
        repeats: at most so many measurements.
        agreement: in (0, 1].
        seed: of the bootstrap.

    Raises:
        ValueError: no choice to consider, or options that cannot be grouped (see `near_equal`).
    """
    if not names:
        raise ValueError("there is no choice to split")
    random = np.random.default_rng(seed)
    before = measure.sample_passes
    measured: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    racing, done, share = list(names), 0, None
    while done < repeats and (share is None or share < agreement):
        for name, distances in measure(racing).items():
            measured[name].append(distances)
        done += 1
        if done >= MIN_REPEATS:
            racing, share = _race({name: measured[name] for name in racing}, branches, random)
    mean = {name: np.mean(of, axis=0) for name, of in measured.items()}
    best = choose({name: mean[name] for name in racing}, branches)
    groups, similarity = best_cut(mean[best], branches)
    return Split(
        choice=best,
        groups=groups,
        similarity=similarity,
        distances=tuple(map(tuple, mean[best].tolist())),
        repeats=done,
        agreement=share,
        rivals={name: best_cut(d, branches)[1] for name, d in mean.items() if name != best},
        sample_passes=measure.sample_passes - before,
    )


def choose(distances: dict[str, NDArray[np.float64]], branches: int) -> str:
    """The choice with the least similarity across its best cut, the mean over pairs; of equal ones the first."""
    cuts = {name: best_cut(d, branches)[1] for name, d in distances.items()}
    return next(name for name, cut in cuts.items() if cut <= min(cuts.values()) + TIE)


def split_at_random(space: SearchSpace, names: Sequence[str], branches: int, generator: torch.Generator) -> Split:
    """The control: one of `names` and one of its partitions, each drawn uniformly.

    Raises:
        ValueError: no choice to consider, or options that cannot be grouped (see `near_equal`).
    """
    if not names:
        raise ValueError("there is no choice to split")
    name = names[int(torch.randint(len(names), (), generator=generator))]
    candidates = near_equal(len(space.choices()[name].options), branches)
    return Split(choice=name, groups=candidates.groups(int(torch.randint(len(candidates), (), generator=generator))))


def _race(
    measured: dict[str, list[NDArray[np.float64]]], branches: int, random: np.random.Generator
) -> tuple[list[str], float]:
    """The choices that may still win, and the share of resamples in which the best wins with its best groups.

    A resample takes the same repeats of every choice, so that what a batch does to all of them cancels out.

    Args:
        measured: D of each repeat, by choice.
        branches: number of groups.
        random: draws the resamples.
    """
    names = list(measured)
    best = names.index(choose({name: np.mean(of, axis=0) for name, of in measured.items()}, branches))
    done = len(measured[names[best]])
    weights = random.multinomial(done, np.full(done, 1 / done), size=RESAMPLES) / done
    similarity = [pair_similarity(np.stack(measured[name])) for name in names]
    candidates = [near_equal(len(measured[name][0]), branches) for name in names]
    cuts = [some.cut(weights @ s) for some, s in zip(candidates, similarity, strict=True)]
    least = np.stack([cut.min(1) for cut in cuts], axis=1)
    low, high = np.quantile(least, INTERVAL, axis=0)
    groups = first_smallest(candidates[best].cut(similarity[best].mean(0)))
    won = (first_smallest(least) == best) & (first_smallest(cuts[best]) == groups)
    return [name for name, reach in zip(names, low, strict=True) if reach <= high[best]], float(won.mean())
