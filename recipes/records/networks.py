"""Results of the stages `train`, `export` and `test`: networks trained alone, their files and their accuracy."""

from __future__ import annotations

from pydantic import Field

from espalier.nas.measurement import Estimate
from espalier.recipes.records.base import ArchitectureRecord, Record
from espalier.recipes.records.ranking import Correlation
from espalier.recipes.records.supernet import Epoch

CONTROLS = ("random", "largest", "same size")
"""Origins of networks that were not found, but are there to compare with."""


class NetworkEstimate(Record):
    """What a predictor gave before the training."""

    value: float | None
    """None unless `status` is `ok`."""
    unit: str = ""
    status: str = "ok"
    reason: str = ""
    higher_is_better: bool
    provenance: dict[str, str | int | float] = Field(default_factory=dict)
    """What is needed to get the value again."""

    @classmethod
    def of(cls, estimate: Estimate) -> NetworkEstimate:
        """The record of a predictor's estimate."""
        return cls(
            value=estimate.value if estimate.status == "ok" else None,
            unit=estimate.unit,
            status=estimate.status,
            reason=estimate.reason,
            higher_is_better=estimate.higher_is_better,
            provenance=dict(estimate.provenance),
        )


class TrainedNetwork(ArchitectureRecord):
    """A network trained alone, from fresh weights."""

    origin: str
    """What it was chosen by: `front`, the name of a selection method, or one of `CONTROLS`."""
    diagram: tuple[tuple[str, str, str], ...] = ()
    """Edges for a drawing: source node, target node, operation."""
    params: int
    macs: int
    """Multiply-accumulates of one image."""
    accuracy: float
    """In [0, 1], on the selection images."""
    images: int
    """Number of the selection images."""
    rows: tuple[Epoch, ...] = ()
    estimates: dict[str, NetworkEstimate] = Field(default_factory=dict)
    """By predictor."""

    @property
    def is_control(self) -> bool:
        """Whether nothing chose it: it is there to compare with."""
        return self.origin in CONTROLS


class TrainResult(Record):
    """The networks trained alone."""

    networks: tuple[TrainedNetwork, ...]


class ExportedFile(Record):
    """An exported ONNX file, checked against torch."""

    exporter: str
    fallback_reason: str | None = None
    """Why the first exporter was not used, if it was not."""
    opset: int
    size_bytes: int
    max_abs_error: float
    """Largest difference from torch's outputs."""
    tolerance: float
    """Largest difference allowed."""


class TestResult(Record):
    """Accuracies on the test images, which nothing before this stage has seen."""

    __test__ = False  # of pytest: its name begins like that of a test

    images: int
    accuracy: dict[str, float]
    """In [0, 1], by the network's id."""
    correlations: tuple[Correlation, ...] = ()
    """Of each predictor with these accuracies."""
