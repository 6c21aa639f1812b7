"""What the blocks of a space cost on a device, as a file: latencies that a search adds up.

    E = fixed + sum_s sum_o F_key(s, o) prod_k p^(k)_(o_k)

over the slots s of the networks and the joint options o of the choices that decide what stands there (see
`nas.cost.blocks`), which is differentiable in the probabilities p: equations 2 and 3 of Cai, Zhu & Han, "ProxylessNAS",
ICLR 2019, for choices that act together. Who measured the table is none of its users' business.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from espalier.nas.choices import InputChoice, LayerChoice
from espalier.nas.cost.blocks import Joint, Slot, Way, state_of
from espalier.nas.cost.table import CostTable, kept_edges
from espalier.nas.elastic.cost import ElasticCosts
from espalier.nas.errors import UserError
from espalier.nas.files import read_json, write_json
from espalier.nas.space import ABSENT, SearchSpace

FORM = "latencies of blocks, 2"
"""Of the file; tells it from other tables of costs."""
_STATES: WeakKeyDictionary[SearchSpace, dict[tuple[str, ...], list[tuple[Joint, Mapping[str, str]]]]] = (
    WeakKeyDictionary()
)
_WAYS: WeakKeyDictionary[SearchSpace, dict[tuple[tuple[str, ...], ...], list[Way | None]]] = WeakKeyDictionary()
"""Of spaces in use: thousands of architectures of a cell are looked at, and the same ones for every table."""
HEAD = ("unit", "space", "origin", "device", "spec", "reference_ms", "fixed")


@dataclass(frozen=True)
class Entry:
    """A measured block.

    Attributes:
        ms: the median.
        ci95: its 95 % bootstrap interval.
        count: timed runs.
        verdict: how far to trust it.
        family: of the block, see `espalier.nas.cost.blocks.Block`.
    """

    ms: float
    ci95: tuple[float, float]
    count: int
    verdict: str
    family: str


@dataclass(frozen=True)
class Calibration:
    """What whole networks said of the sums: `fixed + sum_f scales[f] sum of the entries of family f`.

    Attributes:
        form: how many numbers were fitted.
        fixed: takes the place of the table's.
        scales: by family.
        networks: how many were measured for it.
    """

    form: str
    fixed: float
    scales: Mapping[str, float]
    networks: int


@dataclass(frozen=True)
class BlockTable:
    """The latencies of a space's blocks on one device.

    Attributes:
        unit: of all numbers.
        space: fingerprint of the space, see `space_fingerprint`.
        origin: how the space was asked for, plain JSON.
        device: fingerprint of the device.
        spec: how each block was timed.
        reference_ms: of the network that everything was timed in turns with: numbers are shares of its time, and this.
        fixed: what every network pays.
        slots: where the blocks stand.
        entries: by the blocks' keys.
        calibration: None where there was none.
    """

    unit: Literal["ms"]
    space: str
    origin: Mapping[str, Any]
    device: Mapping[str, Any]
    spec: Mapping[str, Any]
    reference_ms: float
    fixed: float
    slots: Sequence[Slot]
    entries: Mapping[str, Entry]
    calibration: Calibration | None = None

    def costs(self, space: SearchSpace, *, where: str = "table") -> CostTable | ElasticCosts:
        """The costs of the networks of `space`, as calibrated.

        Raises:
            UserError: it is not the table's space.
        """
        if space_fingerprint(space) != self.space:
            raise UserError(
                where, f"is a table of another space, or of one of other sizes: {self.origin}", code="mismatch"
            )
        calibration = self.calibration
        fixed = self.fixed if calibration is None else calibration.fixed
        scales = {} if calibration is None else calibration.scales
        ms = {key: entry.ms * scales.get(entry.family, 1.0) for key, entry in self.entries.items()}
        return costs_of_slots(space, self.slots, ms, fixed)

    def sums_by_family(self, space: SearchSpace) -> Mapping[str, CostTable | ElasticCosts]:
        """What the blocks of each family alone cost, not calibrated."""
        return {
            family: costs_of_slots(
                space, self.slots, {k: e.ms if e.family == family else 0.0 for k, e in self.entries.items()}, 0.0
            )
            for family in sorted({entry.family for entry in self.entries.values()})
        }

    def calibrated(self, calibration: Calibration) -> BlockTable:
        """The same measurements with another calibration."""
        return dataclasses.replace(self, calibration=calibration)

    def write(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        slots = [
            {
                "name": slot.name,
                "choices": slot.choices,
                "dependencies": slot.dependencies,
                "keys": [[joint, state, key] for (joint, state), key in slot.keys.items()],
            }
            for slot in self.slots
        ]
        head = {name: getattr(self, name) for name in HEAD}
        tail = {
            "entries": {key: asdict(entry) for key, entry in self.entries.items()},
            "calibration": None if self.calibration is None else asdict(self.calibration),
            "slots": slots,
        }
        write_json(path, {"form": FORM, **head, **tail})


def is_block_table(value: object) -> bool:
    """Whether a file's content means to be one."""
    return isinstance(value, dict) and "form" in value


def read_block_table(path: Path, space: SearchSpace) -> BlockTable:
    """The table that `BlockTable.write` wrote, for this space.

    Raises:
        UserError: the file is missing or of another form, unit or space; the key is named.
    """
    if not path.is_file():
        raise UserError(str(path), "no such file", code="not_found")
    return parse_block_table(read_json(path), space, where=str(path))


def parse_block_table(value: Any, space: SearchSpace, *, where: str) -> BlockTable:
    """The table in a file's content; see `read_block_table`."""
    if not is_block_table(value) or value["form"] != FORM:
        raise UserError(where, "is not a table of latencies of blocks, as `nas lut build` writes it", code="unreadable")
    if value.get("unit") != "ms":
        raise UserError(f"{where}: unit", f"is {value.get('unit')!r}", allowed=["ms"], code="mismatch")
    if value.get("space") != space_fingerprint(space):
        raise UserError(
            f"{where}: space",
            f"the table is of another space, or of other sizes ({value.get('origin')})",
            code="mismatch",
        )
    try:
        table = BlockTable(
            unit="ms",
            space=str(value["space"]),
            origin=dict(value["origin"]),
            device=dict(value["device"]),
            spec=dict(value["spec"]),
            reference_ms=_number(value["reference_ms"]),
            fixed=_number(value["fixed"]),
            slots=[_slot(row) for row in value["slots"]],
            entries={str(key): _entry(entry) for key, entry in value["entries"].items()},
            calibration=None if value["calibration"] is None else _calibration(value["calibration"]),
        )
        table.costs(space)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(where, f"is damaged ({type(error).__name__}: {error})", code="unreadable") from error
    return table


def costs_of_slots(
    space: SearchSpace, slots: Sequence[Slot], ms: Mapping[str, float], fixed: float
) -> CostTable | ElasticCosts:
    """The costs of a space's networks from those of its blocks, in milliseconds.

    Raises:
        KeyError: a block has no cost.
        UserError: a space with choices between edges beside choices that act together.
    """
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[Way, float]] = {}
    for slot in slots:
        costs = groups.setdefault((slot.choices, slot.dependencies), {})
        for way, key in slot.keys.items():
            costs[way] = costs.get(way, 0.0) + (0.0 if key is None else ms[key])
    kinds = [type(choice) for choice in space.choices().values()]
    one_by_one = all(len(choices) == 1 and not dependencies for choices, dependencies in groups)
    if one_by_one and set(kinds) <= {LayerChoice, InputChoice}:
        return _rows(space, groups, fixed)
    if InputChoice in kinds:
        problem = "has choices between edges beside choices whose blocks depend on each other: no table adds them up"
        raise UserError("space", problem, code="unsupported")
    terms: dict[tuple[str, ...], Tensor] = {(): torch.tensor(fixed, dtype=torch.float64)}
    for (choices, dependencies), costs in groups.items():
        names = tuple(name for name in space.choices() if name in (*choices, *dependencies))
        values = [0.0 if way is None else costs[way] for way in _ways(space, names, choices)]
        sizes = [len(space.choices()[name].options) for name in names]
        term = torch.tensor(values, dtype=torch.float64).reshape(sizes)
        terms[names] = terms[names] + term if names in terms else term
    return ElasticCosts("ms", space, terms)


def _rows(space: SearchSpace, groups: Mapping[Any, Mapping[Way, float]], fixed: float) -> CostTable:
    costs = {
        name: {str(option): groups[(name,), ()].get(((index,), ""), 0.0) for index, option in enumerate(choice.options)}
        for name, choice in space.choices().items()
        if isinstance(choice, LayerChoice)
    }
    return CostTable("ms", fixed, costs, kept_edges(space), space_fingerprint(space), {})


def _ways(space: SearchSpace, names: tuple[str, ...], own: tuple[str, ...]) -> list[Way | None]:
    """What stands in a slot of the choices `own` for each joint option of `names`; None where that is absent."""
    known = _WAYS.setdefault(space, {})
    if (names, own) not in known:
        ways: list[Way | None] = []
        for joint, states in _states(space, names):
            state = state_of(states, own)
            gates = dict(zip(names, joint, strict=True))
            ways.append(None if state == ABSENT else (tuple(gates[name] for name in own), state))
        known[names, own] = ways
    return known[names, own]


def _states(space: SearchSpace, names: tuple[str, ...]) -> list[tuple[Joint, Mapping[str, str]]]:
    """The states of the layers for each joint option of `names`, the other choices at their last option."""
    known = _STATES.setdefault(space, {})
    if names not in known:
        last = {name: len(choice.options) - 1 for name, choice in space.choices().items()}
        known[names] = [
            (joint, space.states(space.architecture({**last, **dict(zip(names, joint, strict=True))})))
            for joint in itertools.product(*(range(len(space.choices()[name].options)) for name in names))
        ]
    return known[names]


def space_fingerprint(space: SearchSpace) -> str:
    """sha256[:12] of a space's layers, choices and images: its sizes, whatever its weights."""
    choices = [(name, choice.options) for name, choice in space.choices().items()]
    shapes = [(name, tuple(parameter.shape)) for name, parameter in space.named_parameters()]
    what = (type(space).__name__, space.input_shape, space.num_classes, choices, shapes, repr(space))
    return hashlib.sha256(repr(what).encode()).hexdigest()[:12]


def _slot(row: Mapping[str, Any]) -> Slot:
    keys = {(tuple(joint), str(state)): None if key is None else str(key) for joint, state, key in row["keys"]}
    return Slot(str(row["name"]), tuple(row["choices"]), keys, tuple(row["dependencies"]))


def _entry(value: Mapping[str, Any]) -> Entry:
    low, high = value["ci95"]
    interval = float(low), float(high)
    return Entry(_number(value["ms"]), interval, int(value["count"]), str(value["verdict"]), str(value["family"]))


def _calibration(value: Mapping[str, Any]) -> Calibration:
    scales = {str(family): _number(scale) for family, scale in value["scales"].items()}
    return Calibration(str(value["form"]), _number(value["fixed"]), scales, int(value["networks"]))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is not a number of at least 0")
    return float(value)
