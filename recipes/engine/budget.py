"""A recipe's budget: everything returned under it is within every limit, and its latency was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from espalier.nas.architecture import Architecture
from espalier.nas.cost.count import CostCounter
from espalier.nas.errors import UserError
from espalier.nas.objective import Constraint
from espalier.nas.search.latency_cascade import CascadeResult, LatencyCascade
from espalier.nas.search.nearest import nearest_feasible
from espalier.nas.seeds import Seeds
from espalier.nas.space import SearchSpace
from espalier.recipes.config.sections.budget import BudgetSettings
from espalier.recipes.engine.latency_cache import Latencies, Pace
from espalier.recipes.engine.latency_learner import MacsOf

FIRST = 12
"""Random architectures that are measured where there is nothing else to learn latencies from."""


@dataclass(frozen=True)
class BudgetChoice:
    """An architecture that meets the budget.

    Attributes:
        architecture: the one to use.
        latency: its measured latency; None where the budget does not limit it.
        replaces: the method's first choice and the limit that it exceeds; None where it meets the budget.
    """

    architecture: Architecture
    latency: CascadeResult | None = None
    replaces: tuple[Architecture, str] | None = None


class Budget:
    """The limits of one run, and the latencies that it has measured and learnt from.

    Args:
        settings: the recipe's section `budget`.
        limits: everything on params and MACs that the search and the budget ask for.
        space: of the architectures.
        counter: their params and MACs.
        macs: their MACs, without building networks where that can be avoided.
        latencies: measured on the recipe's device.
        seeds: of the architectures that are measured to learn from.
        not_measured: told why one of those could not be measured.
    """

    def __init__(
        self,
        settings: BudgetSettings,
        limits: Sequence[Constraint],
        *,
        space: SearchSpace,
        counter: CostCounter,
        macs: MacsOf,
        latencies: Latencies,
        seeds: Seeds,
        not_measured: Callable[[str], None],
    ) -> None:
        self._settings, self._limits = settings, limits
        self._space, self._counter, self._macs = space, counter, macs
        self._seeds, self._not_measured = seeds, not_measured
        self.latencies = latencies

    def check(self) -> None:
        """Find everything that could stop the run later, before anything is trained.

        Raises:
            UserError: a table is missing, of another unit, space or device.
        """
        if self._settings.latency_ms is not None:
            self.latencies.new_learner()

    def cascade(self, pace: Pace) -> LatencyCascade | None:
        """Estimates and measurements under the limit on latency, if there is one."""
        if self._settings.latency_ms is None:
            return None
        return LatencyCascade(
            self._settings.latency_ms,
            lambda architecture: self.latencies.estimate(architecture, pace),
            lambda architecture: self.latencies.measure(architecture, pace),
        )

    def allows(self, architecture: Architecture) -> bool:
        """Whether an architecture is within every limit.

        Its latency is measured as a result's is, unless an estimate rules it out. One that cannot be measured is not
        allowed.
        """
        return self._excess(architecture) is None

    def nearest(self, chosen: Architecture, utility: Callable[[Architecture], float]) -> BudgetChoice:
        """The architecture itself or, where it exceeds a limit, the nearest that exceeds none (`nearest_feasible`).

        Args:
            chosen: by a method that knows nothing of the budget.
            utility: how good an architecture is to that method.

        Raises:
            UserError: nothing near it meets the budget; with the nearest miss.
        """
        cascade = self.cascade("thorough")
        excess = self._excess(chosen, measured=True)
        if excess is None:
            return BudgetChoice(chosen, cascade.with_measurement(chosen) if cascade else None)
        if cascade is not None:
            self._learn_first()
        found = nearest_feasible(self._space, chosen, usage=self._usage, fits=self.allows, utility=utility)
        if found is None:
            problem = f"{chosen.id} has {excess}, and nothing near it meets the budget; {self.miss()}"
            raise UserError("budget", problem, code="infeasible")
        return BudgetChoice(found, cascade.with_measurement(found) if cascade else None, (chosen, excess))

    def miss(self) -> str:
        """What has come nearest to the limits, in a clause."""
        measured = {}
        if self._settings.latency_ms is not None:
            measured = {**self.latencies.known("quick"), **self.latencies.known("thorough")}
        if not measured:
            return f"the limits are {self}"
        architecture, nearest = min(measured.items(), key=lambda row: row[1].latency.ci95[1])
        low, high = nearest.latency.ci95
        return (
            f"the nearest miss of {len(measured)} measured, {architecture.id}, takes {nearest.latency_ms:.4g} ms "
            f"[{low:.4g}, {high:.4g}], and the limits are {self}"
        )

    def __str__(self) -> str:
        limits = {"latency_ms": self._settings.latency_ms, **self._settings.costs}
        return ", ".join(f"{name} <= {limit:g}" for name, limit in limits.items() if limit is not None)

    def _excess(self, architecture: Architecture, *, measured: bool = False) -> str | None:
        """The limit that it exceeds; None where it meets all. With `measured`, an estimate does not rule it out."""
        for limit in self._limits:
            value = getattr(self._counter(architecture), limit.name)
            if limit.violation(value) > 0:
                return f"{limit.name} = {value:g}, not {limit}"
        cascade = self.cascade("thorough")
        if cascade is None:
            return None
        try:
            result = cascade.with_measurement(architecture) if measured else cascade.evaluate(architecture)
            if result.measured is None and cascade.fits(result):
                result = cascade.with_measurement(architecture, result)
        except UserError as error:
            return str(error)
        return None if cascade.fits(result) else cascade.miss(result)

    def _usage(self, architecture: Architecture) -> float:
        """About the largest share of a limit that an architecture takes.

        MACs and params are exact. Latency is an estimate or, as long as there is none, in proportion to MACs.
        """
        limits = self._settings
        shares = []
        if limits.macs is not None:
            shares.append(self._macs.cost(architecture) / limits.macs)
        if limits.params is not None:
            shares.append(self._counter(architecture).params / limits.params)
        if limits.latency_ms is not None:
            shares.append(self._expected_ms(architecture) / limits.latency_ms)
        return max(shares)

    def _expected_ms(self, architecture: Architecture) -> float:
        known = self.latencies.known("thorough").get(architecture)
        if known is not None:
            return known.latency.ci95[1]
        estimate = self.latencies.estimate(architecture, "thorough")
        if estimate is not None:
            return estimate.value
        history = self.latencies.history
        return sum(history.values()) * self._macs.cost(architecture) / sum(map(self._macs.cost, history))

    def _learn_first(self) -> None:
        """Measure random architectures, until there are enough to learn from. Those that fail are left out."""
        generator = self._seeds.generator("latencies")
        for _ in range(2 * FIRST):
            if len(self.latencies.history) >= FIRST:
                return
            try:
                self.latencies.measure(self._space.sample(generator), "quick")
            except UserError as error:
                self._not_measured(str(error))
