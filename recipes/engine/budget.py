"""A recipe's budget: what is returned under it is within every limit, and its latency was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.export.latency import MeasuredLatency
from espalier.nas.architecture import Architecture
from espalier.nas.cost.files import read_cost_table
from espalier.nas.cost.model import macs_of
from espalier.nas.errors import UserError
from espalier.nas.files import read_json
from espalier.nas.measurement import Measurement
from espalier.nas.predictor import Learner, Predictor
from espalier.nas.search.latency_cascade import CascadeResult, LatencyCascade
from espalier.nas.search.nearest import nearest_feasible
from espalier.predictors.latency import CostGuide, LatencyPredictor
from espalier.recipes.engine.latency_cache import Latencies, Pace

if TYPE_CHECKING:
    from espalier.export.devices.base import MeasureSpec
    from espalier.nas.cost.model import CostModel
    from espalier.recipes.config.schema import BudgetSettings
    from espalier.recipes.engine.context import Context

FIRST = 12
"""Random architectures that are measured where there is nothing else to learn latencies from."""


@dataclass(frozen=True)
class Kept:
    """An architecture that keeps the budget.

    Attributes:
        result: its measured latency; None where there is no limit on it.
        replaces: what was chosen at first, and why it could not stay; None where nothing had to be replaced.
    """

    architecture: Architecture
    result: CascadeResult | None
    replaces: tuple[Architecture, str] | None = None


class Budget:
    """The limits of one run, and what it knows of latencies.

    Args:
        context: of the run.
        settings: its section `budget`.
    """

    def __init__(self, context: Context, settings: BudgetSettings) -> None:
        self._context, self._settings = context, settings

    def check(self) -> None:
        """Look at everything that could stop the run later, before anything is trained.

        Raises:
            UserError: a table is missing, of another unit, space or device.
        """
        if self._settings.latency_ms is not None:
            self._learner()
        if self._settings.table is not None:
            self.latencies.device.close()  # it is asked again after hours of training

    @cached_property
    def latencies(self) -> Latencies:
        """Those of the run, on `profile.device`."""
        profile = self._context.recipe.profile
        return Latencies(
            self._timed,
            self._context.measuring_device,
            {"quick": self._context.quick_spec, "thorough": profile.spec()},
            self._learner,
            self._context.run / "latencies.json",
        )

    def _timed(self, architecture: Architecture, spec: MeasureSpec) -> Measurement:
        deployment = self._context.deployment
        if deployment is not None:
            return deployment.latency(architecture, spec)
        timed = MeasuredLatency(self._context.space, self.latencies.device, spec, self._context.run.path)
        return timed(architecture)

    def cascade(self, pace: Pace) -> LatencyCascade | None:
        """Guesses and measurements under the limit on latency, if there is one."""
        if self._settings.latency_ms is None:
            return None
        return LatencyCascade(
            self._settings.latency_ms,
            lambda architecture: self.latencies.estimate(architecture, pace),
            lambda architecture: self.latencies.measure(architecture, pace),
        )

    def keeps(self, architecture: Architecture) -> bool:
        """Whether an architecture is within every limit, its latency measured as a result, unless a guess rules it out.

        One that cannot be measured does not keep it.
        """
        return self._why_not(architecture) is None

    def nearest(self, chosen: Architecture, utility: Callable[[Architecture], float]) -> Kept:
        """The architecture itself or, where it breaks a limit, the nearest that keeps all (`nearest_feasible`).

        Args:
            chosen: by a method that knows nothing of the budget.
            utility: how good an architecture is to that method.

        Raises:
            UserError: nothing keeps it; with the nearest miss.
        """
        cascade = self.cascade("thorough")
        why = self._why_not(chosen, measured=True)
        if why is None:
            return Kept(chosen, cascade.with_measurement(chosen) if cascade else None)
        if cascade is not None:
            self._learn_first()
        found = nearest_feasible(
            self._context.space, chosen, usage=self._usage, fits=lambda a: self._why_not(a) is None, utility=utility
        )
        if found is None:
            raise UserError("budget", f"{chosen.id} has {why}, and nothing near it keeps the budget; {self.miss()}")
        return Kept(found, cascade.with_measurement(found) if cascade else None, (chosen, why))

    def miss(self) -> str:
        """What has come nearest, in a clause."""
        limit = self._settings.latency_ms
        measured = {**self.latencies.known("quick"), **self.latencies.known("thorough")} if limit is not None else {}
        if not measured:
            return f"the limits are {self}"
        architecture, nearest = min(measured.items(), key=lambda row: row[1].latency.ci95[1])
        low, high = nearest.latency.ci95
        return (
            f"the nearest miss of {len(measured)} measured, {architecture.id}, takes {nearest.latency_ms:.4g} ms "
            f"[{low:.4g}, {high:.4g}], and {self} was asked for"
        )

    def __str__(self) -> str:
        limits = {"latency_ms": self._settings.latency_ms, **self._settings.costs}
        return ", ".join(f"{name} <= {limit:g}" for name, limit in limits.items() if limit is not None)

    def _why_not(self, architecture: Architecture, *, measured: bool = False) -> str | None:
        """The limit that it breaks; None where it keeps all. With `measured`, a guess does not rule it out."""
        for limit in self._context.recipe.limits:
            value = getattr(self._context.cost(architecture), limit.name)
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
        """About the largest share of a limit that an architecture takes: of MACs and params exactly, of latency by a
        guess or, as long as there is none, in proportion to MACs.
        """
        limits = self._settings
        shares = []
        if limits.macs is not None:
            shares.append(self._macs.cost(architecture) / limits.macs)
        if limits.params is not None:
            shares.append(self._context.cost(architecture).params / limits.params)
        if limits.latency_ms is not None:
            shares.append(self._expected_ms(architecture) / limits.latency_ms)
        return max(shares)

    def _expected_ms(self, architecture: Architecture) -> float:
        known = self.latencies.known("thorough").get(architecture)
        if known is not None:
            return known.latency.ci95[1]
        guess = self.latencies.estimate(architecture, "thorough")
        if guess is not None:
            return guess.value
        history = self.latencies.history
        return sum(history.values()) * self._macs.cost(architecture) / sum(map(self._macs.cost, history))

    @cached_property
    def _macs(self) -> MacsOf:
        return MacsOf(self._context)

    def _learn_first(self) -> None:
        """Measure random architectures, until there are enough to learn from. Those that fail are left out."""
        generator = self._context.generator("latencies")
        for _ in range(2 * FIRST):
            if len(self.latencies.history) >= FIRST:
                return
            try:
                self.latencies.measure(self._context.space.sample(generator), "quick")
            except UserError as error:
                self._context.run.log("not measured", reason=str(error))

    def _learner(self) -> Learner:
        """Linear in the tables or, without any, in MACs and the numbers of operations."""
        context, settings = self._context, self._settings
        guides: list[Predictor] = []
        if settings.table is not None:
            guides.append(CostGuide(settings.table.name, self._table(settings.table, "budget.table", ours=True)))
        for index, path in enumerate(settings.sources):
            guides.append(CostGuide(path.name, self._table(path, f"budget.sources.{index}", ours=False)))
        seed = context.seed("latency predictor")
        if guides:
            return LatencyPredictor(context.space, guides=guides, seed=seed)
        macs = CostGuide("macs", self._macs, unit="MACs")
        return LatencyPredictor(context.space, guides=[macs], linear=("operations",), encodings=("one_hot",), seed=seed)

    def _table(self, path: Path, where: str, *, ours: bool) -> CostModel:
        if not path.is_file():
            raise UserError(where, f"{path} is no file")
        table = read_cost_table(path, self._context.space)
        if table.unit != "ms":
            raise UserError(where, f"{path} is a table of {table.unit}, latencies in ms are needed")
        if ours and (of := _device_of(read_json(path))) != self.latencies.device_id:
            problem = f"{path} was measured on {of}, and this device is {self.latencies.device_id}"
            raise UserError(where, f"{problem}; list it under budget.sources to learn from it all the same")
        return table


class MacsOf:
    """Multiply-accumulates of architectures: as a sum over layers where the space is one, else of each built network.

    Args:
        context: of the run.
    """

    def __init__(self, context: Context) -> None:
        try:
            self.cost = macs_of(context.space).cost
        except UserError:  # its layers cannot be counted one by one
            self.cost = lambda architecture: float(context.cost(architecture).macs)


def _device_of(table: dict[str, Any]) -> str:
    """The id of the fingerprint in a table's file."""
    environment = table.get("device") or table.get("provenance", {}).get("environment") or {}
    return str(environment.get("id", "an unknown device"))
