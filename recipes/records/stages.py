"""The stages' outputs as typed values. A stage that has not finished is None."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from espalier.nas.measurement import Measurement

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


class SupernetEpoch(Epoch):
    """And what its strategy had to say: `expected` costs of its distribution of architectures, by unit."""

    entropy: float | None = None
    eigenvalue: float | None = None
    expected: dict[str, float] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather_costs(cls, row: Any) -> Any:
        if not isinstance(row, dict):
            return row
        prefix = "expected_"
        costs = {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}
        return {**row, "expected": costs}


class Diagnosis(Record):
    """What a supernet looked like in the end, and what that means; None is what its strategy has not."""

    verdict: str
    learns: bool
    choices: int
    parameter_free: float
    by_chance: float
    entropy: float | None
    eigenvalue: float | None
    gap: float
    training_accuracy: float
    validation_accuracy: float


class SupernetPart(Record):
    """One trained supernet: of the whole space, `root`, or of a part of it. `stopped` says why it ended early."""

    name: str
    rows: list[SupernetEpoch]
    stopped: str | None = None
    diagnosis: Diagnosis | None = None


class Split(Record):
    """How a supernet was divided: indices of the options of one choice in groups, named by `options` where given.

    `similarity` is None where the groups were drawn at random, `agreement` also where few batches were measured.
    """

    choice: str
    groups: list[list[int]]
    options: list[str] = []
    similarity: float | None
    agreement: float | None
    repeats: int
    sample_passes: int


class Supernet(Record):
    strategy: str
    parts: list[SupernetPart]
    splits: dict[str, Split] = {}

    @property
    def has_entropy(self) -> bool:
        """Whether the entropy of its gates was followed."""
        return any(row.entropy is not None for part in self.parts for row in part.rows)


class Comparison(Record):
    """A supernet judged on `images` without each of the `candidates`; `margin` of the decided one over the next."""

    candidates: list[str]
    images: int
    decided: str
    decided_by: Literal["accuracy", "loss"]
    margin: float
    standard_error: float


class Decision(Record):
    """One choice decided; the comparisons are of its options or, where edges are dropped, of all edges left."""

    part: str
    method: str
    choice: str
    option: str
    comparisons: list[Comparison]


class Climb(Record):
    """What is known of a latency under a budget, guessed or measured: `[value, low, high]` in ms."""

    estimate: tuple[float, float, float] | None = None
    measured: tuple[float, float, float] | None = None
    verdict: str = ""


class Replaced(Record):
    """What a method chose at first, and why it made way."""

    id: str
    notation: str
    why: str


class Selected(Record):
    """An architecture chosen from a supernet; `accuracy` in [0, 1] with its weights, on the selection images."""

    method: str
    part: str
    id: str
    notation: str
    accuracy: float | None
    latency: Climb | None = None
    replaces: Replaced | None = None


class Select(Record):
    chosen: list[Selected]
    candidates: list[Selected]
    decisions: list[Decision] = []
    misses: list[str] = []


class RankCorrelation(Record):
    """Rank correlations of a predictor with an accuracy, over `n` architectures."""

    n: int
    kendall: float | None
    kendall_ci95: Interval = None
    spearman: float | None
    spearman_ci95: Interval = None
    not_finite: int = 0


class Precision(Record):
    """The share of the predicted best `k` that are among the true best k."""

    k: int
    value: float | None
    value_ci95: Interval = None


class Correlation(RankCorrelation):
    """How well predictor `name` ranks; by shares (`10%`) `among_best`, and in `precision` for as many chosen."""

    name: str
    among_best: dict[str, RankCorrelation] = {}
    precision: dict[str, Precision] = {}
    regret: float | None = None
    regret_ci95: Interval = None
    best_of_random: float | None = None
    best_of_random_ci95: Interval = None
    spearman_given_params: float | None = None


class RankPoint(Record):
    id: str
    target: float
    values: dict[str, float | None]


class Rank(Record):
    table: str
    target: str
    samples: int
    sampling: str = ""
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
    latency: Climb | None = None


class LadderCounts(Record):
    """How many candidates were decided by what, under a limit on latency; see `ladder_counts`."""

    limit_ms: float
    cost: int
    estimate: int
    measurement: int
    checked: int
    held: int


class Search(Record):
    objectives: list[Objective]
    constraints: list[str] = []
    ladder: LadderCounts | None = None
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
    select: Select | None = None
    search: Search | None = None
    train: Train | None = None
    export: dict[str, ExportedFile] | None = None
    profile: dict[str, Measurement] | None = None
    test: Tested | None = None
