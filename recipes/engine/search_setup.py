"""What the search of a recipe is made of: evaluators, a surrogate, a clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from espalier.nas.architecture import Architecture
from espalier.nas.benchmark_table import read_table
from espalier.nas.errors import UserError
from espalier.nas.objective import Evaluator
from espalier.nas.search.latency_cascade import LatencyCascade
from espalier.nas.search.replay import VirtualClock, replay
from espalier.predictors.surrogate import Surrogate
from espalier.recipes.config.registry import COSTS
from espalier.recipes.config.schema import RecipeSearchSettings

if TYPE_CHECKING:
    from espalier.recipes.engine.context import Context

MEASURED = frozenset({"accuracy", "latency_ms", "size_bytes"})
"""What a search can name that is no predictor."""


class SearchParts:
    """Made for one search of one run.

    Args:
        context: of the run.
        settings: its section `search`.
    """

    def __init__(self, context: Context, settings: RecipeSearchSettings) -> None:
        self._context = context
        self._settings = settings

    def check(self) -> None:
        """Raises UserError where a table that is to be replayed cannot be."""
        size = self._context.space.size
        if self._settings.replay is not None and len(self._replayed) < size:
            problem = f"the table has {len(self._replayed)} of the space's {size} architectures"
            raise UserError("search.replay.table", f"{problem}; a replay needs them all")

    def evaluators(self) -> dict[str, Evaluator]:
        """Everything that the search names, cheap ones first."""
        limited = [limit.name for limit in self._context.recipe.limits]
        names = list(dict.fromkeys([*self._settings.named, *limited, *self._settings.scores]))
        evaluators = {}
        predictors = self._context.predictors.make([name for name in names if name not in MEASURED])
        for name, predictor in predictors.items():
            better = predictor.higher_is_better and name not in COSTS  # as objectives, costs are to fall
            evaluators[name] = Evaluator(name, "maximize" if better else "minimize", predictor)
        if "latency_ms" in names or self.cascade is not None:
            evaluators["latency_ms"] = Evaluator("latency_ms", "minimize", self._latency())
        if "size_bytes" in names and self._context.deployment is not None:
            evaluators["size_bytes"] = Evaluator("size_bytes", "minimize", self._context.deployment.size_bytes)
        if "accuracy" in names:
            evaluators["accuracy"] = self._accuracy()
        return evaluators

    @cached_property
    def settings(self) -> RecipeSearchSettings:
        """The section `search`, with the budget's limits on params and MACs among the constraints."""
        budget = self._context.recipe.budget
        limits = [f"{name} <= {limit!r}" for name, limit in budget.costs.items()] if budget is not None else []
        return self._settings.model_copy(update={"constraints": (*self._settings.constraints, *limits)})

    @cached_property
    def cascade(self) -> LatencyCascade | None:
        """What finds and limits the latency of candidates under a budget."""
        budget = self._context.budget
        return None if budget is None else budget.cascade("quick")

    @cached_property
    def clock(self) -> Callable[[], float]:
        """Tells the seconds that evaluations take: of the table that is replayed, if there is one."""
        return VirtualClock() if self._settings.replay else time.perf_counter

    def surrogate(self) -> Surrogate | None:
        """The predictor that learns from the search, if the recipe asks for one."""
        settings = self._settings.surrogate
        if not self._settings.learns:
            return None
        return Surrogate(
            self._context.space,
            model=settings.model,
            encodings=settings.encodings,
            scores=list(self._context.predictors.make(settings.scores).values()),
            unit="",
            seed=self._context.seed("surrogate"),
        )

    @cached_property
    def _replayed(self) -> dict[Architecture, tuple[float, float]]:
        """Accuracy and seconds of each architecture of the table."""
        settings = self._settings.replay
        assert settings is not None
        columns = [settings.accuracy, *([settings.seconds] if settings.seconds else [])]
        table = read_table(settings.table, self._context.space, columns, where="search.replay.table")
        return {a: (values[0], values[1] if settings.seconds else 0.0) for a, values in table.items()}

    def _accuracy(self) -> Evaluator:
        if isinstance(self.clock, VirtualClock):
            return replay("accuracy", "maximize", self._replayed, self.clock)
        name = self._settings.accuracy
        return Evaluator("accuracy", "maximize", self._context.predictors.make([name])[name])

    def _latency(self) -> Any:
        from espalier.export.latency import MeasuredLatency

        context = self._context
        if self.cascade is not None:
            return self.cascade.measure
        if context.deployment is not None:
            return context.deployment.latency
        return MeasuredLatency(context.space, context.measuring_device(), context.quick_spec, context.run.path)
