"""What the search of a recipe asks about each candidate: evaluators, a surrogate, a clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from espalier.nas.architecture import Architecture
from espalier.nas.benchmark_table import read_table
from espalier.nas.errors import UserError
from espalier.nas.measurement import Estimate, Measurement
from espalier.nas.objective import Constraint, Evaluator
from espalier.nas.search.latency_cascade import LatencyCascade
from espalier.nas.search.replay import VirtualClock, replay
from espalier.nas.space import SearchSpace
from espalier.predictors.surrogate import Surrogate
from espalier.recipes.config.registry import COSTS
from espalier.recipes.config.sections.search import RecipeSearchSettings, ReplaySettings
from espalier.recipes.engine.predictor_set import PredictorSet

MEASURED = frozenset({"accuracy", "latency_ms", "size_bytes"})
"""What a search can name that is not a predictor."""


@dataclass
class SearchSetup:
    """Made for one search of one run.

    Attributes:
        settings: the recipe's section `search`.
        space: to search.
        predictors: of its architectures.
        limits: everything on params and MACs that the search and the budget ask for.
        cascade: finds and limits latency under a budget; None without such a limit.
        latency: times a candidate.
        size_bytes: of a candidate's file, where precision and sparsity are searched.
        seed: of the surrogate.
    """

    settings: RecipeSearchSettings
    space: SearchSpace
    predictors: PredictorSet
    limits: Sequence[Constraint]
    cascade: LatencyCascade | None
    latency: Callable[[Architecture], Measurement]
    size_bytes: Callable[[Architecture], Estimate] | None
    seed: int

    def check(self) -> None:
        """Raises UserError where a table that is to be replayed lacks architectures of the space."""
        if self.settings.replay is not None and len(self._replayed) < self.space.size:
            problem = f"the table has {len(self._replayed)} of the space's {self.space.size} architectures"
            raise UserError("search.replay.table", f"{problem}; a replay needs them all", code="too_few")

    def evaluators(self) -> dict[str, Evaluator]:
        """Everything that the search names, cheap ones first."""
        limited = [limit.name for limit in self.limits]
        names = list(dict.fromkeys([*self.settings.named, *limited, *self.settings.scores]))
        evaluators = {}
        predictors = self.predictors.make([name for name in names if name not in MEASURED])
        for name, predictor in predictors.items():
            better = predictor.higher_is_better and name not in COSTS  # as objectives, costs are minimised
            evaluators[name] = Evaluator(name, "maximize" if better else "minimize", predictor)
        if self.cascade is not None:
            evaluators["latency_ms"] = Evaluator("latency_ms", "minimize", self.cascade.measure)
        elif "latency_ms" in names:
            evaluators["latency_ms"] = Evaluator("latency_ms", "minimize", self.latency)
        if "size_bytes" in names and self.size_bytes is not None:
            evaluators["size_bytes"] = Evaluator("size_bytes", "minimize", self.size_bytes)
        if "accuracy" in names:
            evaluators["accuracy"] = self._accuracy()
        return evaluators

    @cached_property
    def clock(self) -> Callable[[], float]:
        """Tells the seconds that evaluations take: those of the table that is replayed, if there is one."""
        return VirtualClock() if self.settings.replay else time.perf_counter

    def surrogate(self) -> Surrogate | None:
        """The predictor that learns from the search, if the recipe asks for one."""
        settings = self.settings.surrogate
        if not self.settings.learns:
            return None
        return Surrogate(
            self.space,
            model=settings.model,
            encodings=settings.encodings,
            scores=list(self.predictors.make(settings.scores).values()),
            unit="",
            seed=self.seed,
        )

    @cached_property
    def _replayed(self) -> dict[Architecture, tuple[float, float]]:
        """Accuracy and seconds of each architecture of the table; empty where none is replayed."""
        settings = self.settings.replay
        return {} if settings is None else _read_replay(settings, self.space)

    def _accuracy(self) -> Evaluator:
        if isinstance(self.clock, VirtualClock):
            return replay("accuracy", "maximize", self._replayed, self.clock)
        name = self.settings.accuracy
        return Evaluator("accuracy", "maximize", self.predictors.make([name])[name])


def _read_replay(settings: ReplaySettings, space: SearchSpace) -> dict[Architecture, tuple[float, float]]:
    columns = [settings.accuracy, *([settings.seconds] if settings.seconds else [])]
    table = read_table(settings.table, space, columns, where="search.replay.table")
    return {a: (values[0], values[1] if settings.seconds else 0.0) for a, values in table.items()}
