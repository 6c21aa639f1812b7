"""The predictors of a space by name, sharing what they can."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from espalier.nas.architecture import Architecture
from espalier.nas.cost.count import CostCounter
from espalier.nas.predictor import Predictor
from espalier.nas.space import SearchSpace
from espalier.predictors.ensemble import RankEnsemble
from espalier.predictors.zero_cost.predictor import zero_cost_predictors
from espalier.predictors.zero_cost.score import Score
from espalier.recipes.config.own_scores import make_own_score
from espalier.recipes.config.registry import COSTS, INHERITED, PREDICTORS, SCORES, aggregate, members, own_score
from espalier.recipes.config.roles import imported
from espalier.recipes.config.roles import load as component

REFERENCE = 100
"""Random architectures that an ensemble ranks an architecture among."""


@dataclass
class PredictorSet:
    """Makes the predictors that a run or a command names.

    Attributes:
        space: of the architectures.
        batch: gives the images and labels that zero-cost scores use.
        seed: of the scored networks' weights.
        repeats: initialisations that scores are averaged over.
        limit_s: time limit per score and network, in seconds.
        inherited: makes the predictor of inherited accuracy, where there is a supernet.
        reference_seed: of the architectures that ensembles rank among.
    """

    space: SearchSpace
    batch: Callable[[], tuple[Tensor, Tensor]]
    seed: int
    repeats: int = 1
    limit_s: float | None = None
    inherited: Callable[[], Predictor] | None = None
    reference_seed: int = 0

    def make(self, names: Iterable[str], *, where: str = "predictors") -> dict[str, Predictor]:
        """The predictors of these names, cheap ones first; inherited accuracy only where there is a supernet.

        Args:
            names: of predictors; several joined by `+` are their rank ensemble.
            where: the key or option that holds the names, for errors.

        Raises:
            UserError: unknown name.
        """
        names = list(names)
        base = self._base({part for name in names for part in members(name, where=where)}, where=where)
        made: dict[str, Predictor] = {}
        for name in sorted(names, key=_cheap_first):
            parts = members(name, where=where)
            if any(part not in base for part in parts):
                continue
            alone = parts == (name,)
            made[name] = base[name] if alone else self._ensemble(name, [base[part] for part in parts])
        return made

    @cached_property
    def counter(self) -> CostCounter:
        """Counts params and MACs, each architecture once."""
        return CostCounter(self.space)

    @cached_property
    def _reference(self) -> Sequence[Architecture]:
        generator = torch.Generator().manual_seed(self.reference_seed)
        return [self.space.sample(generator) for _ in range(REFERENCE)]

    def _base(self, names: set[str], *, where: str) -> Mapping[str, Predictor]:
        made: dict[str, Predictor] = {
            name: imported(COSTS[name])(self.space, self.counter) for name in COSTS if name in names
        }
        scores: list[Score] = [component(SCORES, name, where=where)() for name in SCORES if name in names]
        for name in sorted(name for name in names if own_score(name) is not None):
            own = make_own_score(name, self.space, where=where)
            if isinstance(own, Score):
                scores.append(own)
            else:
                made[name] = own
        if scores:
            x, y = self.batch()
            options: dict[str, Any] = {"seed": self.seed, "repeats": self.repeats, "limit_s": self.limit_s}
            made |= zero_cost_predictors(scores, self.space, x, y, **options)
        if INHERITED in names and self.inherited is not None:
            made[INHERITED] = self.inherited()
        return made

    def _ensemble(self, name: str, parts: Sequence[Predictor]) -> Predictor:
        return RankEnsemble(name, parts, self._reference, aggregate=aggregate(name))


def _cheap_first(name: str) -> int:
    return PREDICTORS.index(name) if name in PREDICTORS else len(PREDICTORS)
