"""A run, finished or not, as Python sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.measurement import Measurement
from espalier.recipes.inputs.model_source import model_source
from espalier.recipes.records.networks import TrainedNetwork
from espalier.recipes.records.reading import Run as RunRecord
from espalier.recipes.records.reading import exceeds
from espalier.recipes.records.search import SearchedCandidate, SelectedArchitecture

if TYPE_CHECKING:
    import pandas
    from torch import nn


@dataclass(frozen=True)
class RunNetwork:
    """A network that a run has trained from scratch.

    Attributes:
        record: what the training recorded: parameters, MACs, epochs, estimates made before.
        folder: its files.
        image_shape: `(channels, height, width)` of one image.
        classes: how many outputs it has.
        test_accuracy: in [0, 1], on the test images; None before they were used.
        measurement: its latency on the recipe's device; None before it was timed.
    """

    record: TrainedNetwork
    folder: Path
    image_shape: tuple[int, int, int]
    classes: int
    test_accuracy: float | None
    measurement: Measurement | None

    @property
    def architecture(self) -> Architecture:
        """The architecture."""
        return self.record.architecture

    @property
    def id(self) -> str:
        """The id of the architecture, which also names the folder."""
        return self.record.id

    @property
    def accuracy(self) -> float:
        """In [0, 1], on the selection images."""
        return self.record.accuracy

    @property
    def params(self) -> int:
        """Parameters."""
        return self.record.params

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.record.macs

    @property
    def latency_ms(self) -> float | None:
        """The median latency in milliseconds; None before it was timed."""
        return None if self.measurement is None else self.measurement.latency_ms

    @property
    def onnx(self) -> Path:
        """The checked ONNX file."""
        return self.folder / "model.onnx"

    @property
    def weights(self) -> Path:
        """The weights, as safetensors."""
        return self.folder / "model.safetensors"

    def load(self) -> nn.Module:
        """The network with its weights, on the CPU in evaluation mode.

        Raises:
            UserError: it has not been exported yet, or a file is damaged.
        """
        return model_source(self.folder).make(self.image_shape, self.classes).eval()

    def to_dict(self) -> dict[str, Any]:
        """As `nas run --json` prints it."""
        measurement = self.measurement
        return {
            "id": self.id,
            "notation": self.record.notation,
            "origin": self.record.origin,
            "params": self.params,
            "macs": self.macs,
            "selection_accuracy": self.accuracy,
            "test_accuracy": self.test_accuracy,
            "latency_ms": self.latency_ms,
            "latency_ms_ci95": None if measurement is None else measurement.latency.ci95,
            "verdict": None if measurement is None else measurement.verdict,
            "onnx": str(self.onnx),
        }


@dataclass(frozen=True)
class Run:
    """A run folder, as far as the run has come.

    Attributes:
        record: all that the stages recorded.
    """

    record: RunRecord

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.record.path

    @property
    def report(self) -> Path:
        """The report, an HTML file."""
        return self.folder / "report.html"

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The resolved recipe."""
        return self.record.recipe

    @property
    def candidates(self) -> tuple[SearchedCandidate, ...]:
        """The architectures that the search evaluated, in order."""
        search = self.record.stages.search
        return () if search is None else search.candidates

    @property
    def front(self) -> tuple[SearchedCandidate, ...]:
        """The candidates that no other one is better than in all objectives."""
        search = self.record.stages.search
        by_id = {candidate.id: candidate for candidate in self.candidates if candidate.status == "complete"}
        return () if search is None else tuple(by_id[id_] for id_ in search.front)

    @property
    def selected(self) -> tuple[SelectedArchitecture, ...]:
        """The architectures that were selected from the supernet."""
        select = self.record.stages.select
        return () if select is None else select.chosen

    @cached_property
    def networks(self) -> tuple[RunNetwork, ...]:
        """The networks trained from scratch that meet the budget, the fastest first."""
        networks = [self._network(record) for record in self.record.stages.networks]
        within = [n for n in networks if n.measurement is None or not exceeds(n.measurement, self.record.limit_ms)]
        return tuple(sorted(within, key=lambda network: network.latency_ms or 0.0))

    @property
    def over_budget(self) -> tuple[str, ...]:
        """The ids of networks that were trained, but exceed the latency budget as measured."""
        return tuple(self.record.over_budget)

    def candidates_frame(self) -> pandas.DataFrame:
        """A row for each candidate: id, notation, status, reason, and a column for each value.

        Raises:
            UserError: pandas is not installed.
        """
        rows = [
            {"id": one.id, "notation": one.notation, "status": one.status, "reason": one.reason, **one.values}
            for one in self.candidates
        ]
        return _frame(rows)

    def networks_frame(self) -> pandas.DataFrame:
        """A row for each of `networks`, with the columns of `RunNetwork.to_dict`.

        Raises:
            UserError: pandas is not installed.
        """
        return _frame([network.to_dict() for network in self.networks])

    def _network(self, record: TrainedNetwork) -> RunNetwork:
        stages = self.record.stages
        assert stages.data is not None  # the first stage of every run
        return RunNetwork(
            record,
            self.folder / "architectures" / record.id,
            stages.data.image_shape,
            len(stages.data.classes),
            None if stages.test is None else stages.test.accuracy.get(record.id),
            (stages.profile or {}).get(record.id),
        )


def _frame(rows: list[dict[str, Any]]) -> pandas.DataFrame:
    try:
        import pandas
    except ImportError as error:
        raise UserError("pandas", "is not installed: pip install pandas", code="unavailable") from error
    return pandas.DataFrame(rows)
