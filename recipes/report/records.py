"""The stages' outputs as typed values. A stage that has not finished is None."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from nas.measurement import Measurement

Interval = tuple[float | None, float | None] | None
"""None, whole or in part, where it is not defined."""


class Record(BaseModel):
    """A part of a stage's outputs; keys that the report does not show are let pass."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Data(Record):
    name: str
    classes: list[str]
    image_shape: tuple[int, int, int]
    splits: dict[str, int]


class Epoch(Record):
    """One line of a training's log; `accuracy` in [0, 1] where it was looked at."""

    epoch: int
    loss: float | None
    accuracy: float | None = None


class Supernet(Record):
    strategy: str
    rows: list[Epoch]


class Correlation(Record):
    """Rank correlations of predictor `name` with an accuracy, over `n` architectures."""

    name: str
    n: int
    kendall: float | None
    kendall_ci95: Interval = None
    spearman: float | None
    spearman_ci95: Interval = None
    not_finite: int = 0


class RankPoint(Record):
    id: str
    target: float
    values: dict[str, float | None]


class Rank(Record):
    table: str
    target: str
    samples: int
    correlations: list[Correlation]
    points: list[RankPoint]


class Objective(Record):
    name: str
    direction: Literal["maximize", "minimize"]


class SearchedCandidate(Record):
    trial: int
    id: str
    notation: str = ""
    status: Literal["complete", "infeasible", "failed"]
    values: dict[str, float | None]
    reason: str = ""


class Search(Record):
    objectives: list[Objective]
    constraints: list[str] = []
    counts: dict[str, int]
    stopped: str = ""
    candidates: list[SearchedCandidate]
    front: list[str]


class NetworkEstimate(Record):
    """`value` is None, or to be left aside, unless `status` is `ok`."""

    value: float | None
    unit: str = ""
    status: str = "ok"
    higher_is_better: bool


class TrainedNetwork(Record):
    """A network trained alone; `accuracy` in [0, 1] on the `images` images of the selection split."""

    id: str
    notation: str
    origin: str
    diagram: list[tuple[str, str, str]] = []
    params: int
    macs: int
    accuracy: float
    images: int
    rows: list[Epoch] = []
    estimates: dict[str, NetworkEstimate] = {}


class Train(Record):
    networks: list[TrainedNetwork]


class ExportedFile(Record):
    exporter: str
    fallback_reason: str | None = None
    opset: int
    size_bytes: int
    max_abs_error: float
    tolerance: float


class Tested(Record):
    images: int
    accuracy: dict[str, float]
    correlations: list[Correlation] = []


class Stages(Record):
    """The outputs of every stage, by name."""

    data: Data | None = None
    supernet: Supernet | None = None
    rank: Rank | None = None
    search: Search | None = None
    train: Train | None = None
    export: dict[str, ExportedFile] | None = None
    profile: dict[str, Measurement] | None = None
    test: Tested | None = None
