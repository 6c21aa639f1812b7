"""Which choice of a region to split, and into which groups: measured until the answer is stable, or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from nas.choices import InputChoice
from nas.region import Region
from nas.space import SearchSpace
from supernets.fewshot.partition import (
    MOST_PARTITIONS,
    TIE,
    Groups,
    best_cut,
    count_near_equal,
    first_smallest,
    near_equal,
    pair_similarity,
)

FEWEST_REPEATS = 8
"""Before these a bootstrap says nothing."""
RESAMPLES = 400
INTERVAL = (0.025, 0.975)


class Split(BaseModel):
    """A region's split, and what it rests on."""

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
    """Share of bootstrap resamples of the repeats in which the choice's best groups are these."""
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


def splittable(space: SearchSpace, region: Region, branches: int) -> tuple[str, ...]:
    """The choices that are still whole in the region and have options enough, but not too many to try all groups.

    Choices between the outputs of layer choices are none of them: the strengths of these edges decide there.
    """
    return tuple(
        name
        for name, choice in space.choices().items()
        if branches <= len(choice.options) == len(region[name])
        and count_near_equal(len(choice.options), branches) <= MOST_PARTITIONS
        and not (isinstance(choice, InputChoice) and choice.edges)
    )


def split_by_gradients(
    measure: Measure, names: Sequence[str], branches: int, *, repeats: int, agreement: float, seed: int
) -> Split:
    """Split the choice whose groups agree least: the smallest mean similarity across its best cut.

    Choices race: after the first repeats, those go on whose bootstrap interval (95 %) of the cut reaches that of the
    best. It ends when, in a share `agreement` of the resamples, the best choice's groups are the same.

    Args:
        measure: gives D. names: the choices to consider. branches: number of groups.
        repeats: at most so many measurements. agreement: in (0, 1]. seed: of the bootstrap.

    Raises:
        ValueError: no choice to consider, or options that cannot be grouped (see `near_equal`).
    """
    if not names:
        raise ValueError("there is no choice to split")
    random = np.random.default_rng(seed)
    before = measure.sample_passes
    measured: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    racing, best, stable, done = list(names), names[0], 0.0, 0
    while done < repeats and stable < agreement:
        for name, distances in measure(racing).items():
            measured[name].append(distances)
        done += 1
        if done < min(FEWEST_REPEATS, repeats):
            continue
        weights = random.multinomial(done, np.full(done, 1 / done), size=RESAMPLES) / done
        bounds = {name: _Bootstrap(measured[name], weights, branches) for name in racing}
        best = choose({name: np.mean(measured[name], axis=0) for name in racing}, branches)
        racing = [name for name in racing if bounds[name].low <= bounds[best].high]
        stable = bounds[best].agreement
    mean = {name: np.mean(of, axis=0) for name, of in measured.items()}
    groups, similarity = best_cut(mean[best], branches)
    return Split(
        choice=best,
        groups=groups,
        similarity=similarity,
        distances=tuple(map(tuple, mean[best].tolist())),
        repeats=done,
        agreement=stable,
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


class _Bootstrap:
    """The best cut of one choice over resamples of its repeats.

    Args:
        measured: D of each repeat. weights: how often each resample has each repeat, as shares.
    """

    def __init__(self, measured: Sequence[NDArray[np.float64]], weights: NDArray[np.float64], branches: int) -> None:
        candidates = near_equal(len(measured[0]), branches)
        similarity = pair_similarity(np.stack(measured))
        cuts = candidates.cut(weights @ similarity)
        self.low, self.high = np.quantile(cuts.min(1), INTERVAL)
        winner = first_smallest(candidates.cut(similarity.mean(0)))
        self.agreement = float(np.mean(first_smallest(cuts) == winner))
