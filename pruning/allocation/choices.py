"""The sparsity levels each layer may choose from, with the error and the cost of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from espalier.nas.errors import UserError
from espalier.pruning.allocation.dynamic import Table
from espalier.pruning.allocation.scored import matching_scores
from espalier.pruning.masks import flatten, zeros_at
from espalier.pruning.patterns import Scores
from espalier.pruning.weights import Weights

GRID = tuple(1 - 0.85**step for step in range(41))
"""Sparsities whose densities fall geometrically, from 1 to .0015."""


@dataclass(frozen=True)
class Choices:
    """The choices of all layers; the first index of the tables is the layer, the second the choice.

    Attributes:
        names: of the weights.
        sizes: how many weights each has.
        zeros: at each choice, at most all but one.
        errors: error of each choice; errors of layers add up.
        costs: of the layer at each choice, in any unit.
        by_params: whether the costs are the numbers of kept weights.
        by_scores: whether the errors are sums of scores, and so known for any number of zeros.
        scores: scores of each layer in ascending order; the lowest are pruned first.
    """

    names: tuple[str, ...]
    sizes: np.ndarray
    zeros: np.ndarray
    errors: Table
    costs: Table
    by_params: bool
    by_scores: bool
    scores: tuple[np.ndarray, ...]

    def zeros_at(self, chosen: Sequence[int]) -> np.ndarray:
        """Zeros of each layer at its choice."""
        return self.zeros[np.arange(len(self.names)), chosen]

    def error_at(self, zeros: Sequence[int] | np.ndarray) -> float:
        """The sum of errors at any numbers of zeros, by linear interpolation between the known ones."""
        if self.by_scores:
            rows = [
                (np.arange(n + 1), np.append(0.0, np.cumsum(part)))
                for n, part in zip(self.sizes, self.scores, strict=True)
            ]
        else:
            rows = list(zip(self.zeros, self.errors, strict=True))
        return float(sum(np.interp(wanted, known, errors) for wanted, (known, errors) in zip(zeros, rows, strict=True)))


def choices(
    weights: Weights,
    *,
    sparsities: Sequence[float] = GRID,
    scores: Scores | None = None,
    errors: Mapping[str, Sequence[float]] | None = None,
    costs: Mapping[str, Sequence[float]] | None = None,
    macs: Mapping[str, float] | None = None,
) -> Choices:
    """The table of choices.

    Args:
        weights: the weights of the network, by name.
        sparsities: the choices of every layer, ascending; at r a layer of n weights has ceil(r n) zeros.
        scores: additive score of each weight: w² by default, or saliencies.
        errors: error of each layer at each choice, such as a measured increase of a loss; by default the sum of the
            scores of the pruned weights, which for w² is ||w - top(w)||².
        costs: cost of each layer at each choice, such as a latency in ms; by default the number of kept weights.
        macs: instead of costs, the cost of one weight of each layer (see `layer_macs`).

    Raises:
        UserError: an argument is out of range or does not fit the network.
    """
    if list(sparsities) != sorted(set(sparsities)) or not all(0 <= r <= 1 for r in sparsities) or not sparsities:
        raise UserError("sparsities", f"must be increasing numbers from 0 to 1, not {list(sparsities)}")
    if costs is not None and macs is not None:
        raise UserError("costs", "are given twice, as costs and as macs", code="conflict")
    names = tuple(weights)
    sizes = np.array([weight.numel() for weight in weights.values()])
    zeros = np.array([[min(zeros_at(r, n), n - 1) for r in sparsities] for n in sizes.tolist()])
    if scores is None:
        given = {name: weight.detach() ** 2 for name, weight in weights.items()}
    else:
        given = matching_scores(weights, scores, where="scores")
    ascending = tuple(np.sort(flatten(score.detach()).cpu().double().numpy()) for score in given.values())
    if errors is None:
        sums = [np.concatenate([[0.0], np.cumsum(part)]) for part in ascending]
        error_table = np.stack([part[row] for part, row in zip(sums, zeros, strict=True)])
    else:
        error_table = _table(names, errors, zeros.shape[1], where="errors")
    kept = sizes[:, None] - zeros
    if costs is not None:
        cost_table = _table(names, costs, zeros.shape[1], where="costs")
    elif macs is not None:
        cost_table = kept * _table(names, {name: [value] for name, value in macs.items()}, 1, where="macs")
    else:
        cost_table = kept.astype(np.float64)
    by_params = costs is None and macs is None
    by_scores = errors is None
    return Choices(names, sizes, zeros, error_table, cost_table, by_params, by_scores, ascending)


def _table(names: Sequence[str], rows: Mapping[str, Sequence[float]], length: int, *, where: str) -> Table:
    for name in names:
        if name not in rows:
            raise UserError(f"{where}.{name}", f"is missing; {length} finite numbers are needed", code="missing")
        if len(rows[name]) != length or not np.isfinite(rows[name]).all():
            raise UserError(f"{where}.{name}", f"must be {length} finite numbers")
    return np.array([rows[name] for name in names], dtype=np.float64)
