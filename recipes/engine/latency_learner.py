"""What latencies are estimated from under a budget: tables of this or other devices or, without any, MACs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.nas.architecture import Architecture
from espalier.nas.cost.count import CostCounter
from espalier.nas.cost.files import read_cost_table
from espalier.nas.cost.model import CostModel, macs_of
from espalier.nas.errors import UserError
from espalier.nas.files import read_json
from espalier.nas.predictor import Learner, Predictor
from espalier.nas.space import SearchSpace
from espalier.predictors.latency import CostGuide, LatencyPredictor
from espalier.recipes.config.sections.budget import BudgetSettings


class MacsOf:
    """Multiply-accumulates of architectures: as a sum over layers where the space is one, else of each built network.

    Args:
        space: of the architectures.
        counter: counts built networks.
    """

    def __init__(self, space: SearchSpace, counter: CostCounter) -> None:
        self.cost: Callable[[Architecture], float]
        try:
            self.cost = macs_of(space).cost
        except UserError:  # its layers cannot be counted one by one
            self.cost = lambda architecture: float(counter(architecture).macs)


@dataclass(frozen=True)
class LatencyLearnerFactory:
    """Makes predictors of latency, to be fitted to what a run has measured.

    Attributes:
        settings: the recipe's section `budget`.
        space: of the architectures.
        macs: of each of them.
        device_id: gives the id of the device that the run measures on.
        seed: of the predictors.
    """

    settings: BudgetSettings
    space: SearchSpace
    macs: MacsOf
    device_id: Callable[[], str]
    seed: int

    def __call__(self) -> Learner:
        """A new predictor, linear in the tables or, without any, in MACs and the numbers of operations.

        Raises:
            UserError: a table is missing, of another unit, space or device.
        """
        guides: list[Predictor] = []
        table = self.settings.table
        if table is not None:
            guides.append(CostGuide(table.name, self._table(table, "budget.table", same_device=True)))
        for index, path in enumerate(self.settings.sources):
            guides.append(CostGuide(path.name, self._table(path, f"budget.sources.{index}", same_device=False)))
        if guides:
            return LatencyPredictor(self.space, guides=guides, seed=self.seed)
        macs = CostGuide("macs", self.macs, unit="MACs")
        return LatencyPredictor(
            self.space, guides=[macs], linear=("operations",), encodings=("one_hot",), seed=self.seed
        )

    def _table(self, path: Path, where: str, *, same_device: bool) -> CostModel:
        if not path.is_file():
            raise UserError(where, f"{path} is not a file", code="not_found")
        table = read_cost_table(path, self.space)
        if table.unit != "ms":
            raise UserError(where, f"{path} is a table of {table.unit}, latencies in ms are needed", code="mismatch")
        if same_device and (of := _device_of(read_json(path))) != (here := self.device_id()):
            problem = f"{path} was measured on {of}, and this device is {here}"
            raise UserError(where, f"{problem}; list it under budget.sources to learn from it anyway", code="mismatch")
        return table


def _device_of(table: dict[str, Any]) -> str:
    """The id of the fingerprint in a table's file."""
    environment = table.get("device") or table.get("provenance", {}).get("environment") or {}
    return str(environment.get("id", "an unknown device"))
