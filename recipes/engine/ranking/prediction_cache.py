"""The value of each predictor for each architecture of a sample; cached on disk, so that none is computed twice."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from espalier.nas.architecture import Architecture
from espalier.nas.errors import CannotWrite, UserError
from espalier.nas.files import write_bytes
from espalier.nas.measurement import Estimate
from espalier.nas.predictor import Predictor
from espalier.nas.progress import Track
from espalier.nas.sealed import seal, unseal
from espalier.predictors.ensemble import aggregate_ranks
from espalier.recipes.config.registry import aggregate, members

CURE = "delete the file to compute its values again"
NOT_LASTING = ("timed out", "out of memory")


@dataclass(frozen=True)
class Value:
    """One predictor's value for one architecture; nan where there is none, and `status` says why."""

    value: float
    status: str = "ok"


@dataclass(frozen=True)
class Column:
    """One predictor's values for all architectures of a sample, in their order."""

    name: str
    higher_is_better: bool
    values: tuple[Value, ...]

    @property
    def numbers(self) -> list[float]:
        """The bare values."""
        return [value.value for value in self.values]


class ValueStore:
    """A file of one JSON line for each value, or none at all.

    Values that ran out of time or memory are not kept: the next attempt may have more of them.

    Attributes:
        added: number of architectures that values were added for.

    Args:
        path: the file; its values are read, and a last line that is incomplete is dropped. None keeps nothing.

    Raises:
        UserError: the file contains something else.
        CannotWrite: it cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.added = 0
        self._known: dict[tuple[str, str], Value] = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes() if path.exists() else b""
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                write_bytes(path, whole)
        except OSError as error:
            raise CannotWrite(path, error) from error
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                record = unseal(json.loads(line), f"{path}, line {number}", CURE)
                value = math.nan if record["value"] is None else float(record["value"])
                self._known[record["id"], record["predictor"]] = Value(value, record["status"])
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise UserError(
                    f"{path}, line {number}", f"is not the value of a predictor ({error})", code="unreadable"
                ) from error

    def get(self, architecture: Architecture, name: str) -> Value | None:
        """The known value of a predictor for an architecture."""
        return self._known.get((architecture.id, name))

    def add(self, architecture: Architecture, values: Mapping[str, Value]) -> None:
        """Keep the values of the named predictors for an architecture."""
        self._known |= {(architecture.id, name): value for name, value in values.items()}
        self.added += bool(values)
        lasting = {name: value for name, value in values.items() if value.status not in NOT_LASTING}
        if self._path is None or not lasting:
            return
        lines = [
            json.dumps(seal({"id": architecture.id, "predictor": name, "value": _json(v.value), "status": v.status}))
            for name, v in lasting.items()
        ]
        try:
            with self._path.open("a") as file:
                file.write("\n".join(lines) + "\n")
        except OSError as error:
            raise CannotWrite(self._path, error) from error


def collect(
    architectures: Sequence[Architecture], predictors: Mapping[str, Predictor], *, store: ValueStore, track: Track
) -> dict[str, Column]:
    """The column of each predictor; values that the store lacks are computed, one architecture after another."""
    for architecture in track(architectures, "rank", len(architectures)):
        new: dict[str, Value] = {}
        for name, predictor in predictors.items():
            if store.get(architecture, name) is None:
                new[name] = _value(predictor(architecture))
        store.add(architecture, new)
    columns = {}
    for name, predictor in predictors.items():
        values = [store.get(architecture, name) for architecture in architectures]
        columns[name] = Column(name, predictor.higher_is_better, tuple(v for v in values if v is not None))
    return columns


def with_ensembles(columns: Mapping[str, Column], names: Iterable[str]) -> dict[str, Column]:
    """The columns of the named predictors; ensembles combine the ranks within the sample."""
    result = {}
    for name in names:
        parts = members(name, where="predictors")
        if any(part not in columns for part in parts):
            continue
        if parts == (name,):
            result[name] = columns[name]
            continue
        numbers = {part: columns[part].numbers for part in parts}
        directions = {part: columns[part].higher_is_better for part in parts}
        total = aggregate_ranks(numbers, directions, aggregate(name))
        result[name] = Column(name, True, tuple(Value(float(value)) for value in total))
    return result


def _value(estimate: Estimate) -> Value:
    return Value(estimate.value, estimate.status)


def _json(value: float) -> float | str | None:
    """JSON has neither nan nor infinities; Python reads the latter from their names."""
    return None if math.isnan(value) else value if math.isfinite(value) else str(value)
