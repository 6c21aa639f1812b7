"""What all records share: they are immutable, and an architecture in them stays an architecture."""

from __future__ import annotations

import json
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator, computed_field

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.search.latency_cascade import CascadeResult, LatencyInterval

Interval = tuple[float | None, float | None] | None
"""Low and high end. None, as a whole or in part, where it is not defined."""


class Record(BaseModel):
    """A part of a stage's result. Unknown keys are ignored, so that folders of later versions can be read."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


def _architecture(value: object) -> Architecture:
    if isinstance(value, Architecture):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"an architecture is an object of options, not {type(value).__name__}")
    try:
        return Architecture(value)
    except UserError as error:
        raise ValueError(str(error)) from error


def _options(architecture: Architecture) -> dict[str, Any]:
    options: dict[str, Any] = json.loads(architecture.to_json())
    return options


ArchitectureField = Annotated[
    Architecture, PlainValidator(_architecture), PlainSerializer(_options, return_type=dict[str, Any])
]
"""An `Architecture`; in JSON the object of its options."""


class ArchitectureRecord(Record):
    """Something known of one architecture."""

    architecture: ArchitectureField
    notation: str
    """The architecture in the notation of its space."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def id(self) -> str:
        """The architecture's id, which also names its folder in the run folder."""
        return self.architecture.id


class LatencyRange(NamedTuple):
    """A latency in ms with its 95 % interval; in JSON `[value, low, high]`."""

    value: float
    low: float
    high: float


class CandidateLatency(Record):
    """What is known of a latency under a budget: estimated, measured or both."""

    estimate: LatencyRange | None = None
    measured: LatencyRange | None = None
    verdict: str = ""
    """On the measurement; empty where there is none."""

    @classmethod
    def of(cls, result: CascadeResult) -> CandidateLatency:
        """The record of what a latency cascade found."""
        return cls(estimate=_range(result.estimate), measured=_range(result.measured), verdict=result.verdict)


def _range(found: LatencyInterval | None) -> LatencyRange | None:
    return None if found is None else LatencyRange(found.value, found.low, found.high)
