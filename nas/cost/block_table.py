"""The latencies of a space's blocks on one device, as a table in a file; a network's latency is their sum.

    E = fixed + sum_s sum_o F_key(s, o) prod_k p^(k)_(o_k)

over the slots s of the networks and the joint options o of the choices that decide which block is there (see
`nas.cost.blocks`). E is differentiable in the probabilities p: equations 2 and 3 of Cai, Zhu & Han, "ProxylessNAS",
ICLR 2019, for choices that act together. Users of a table need not know who measured it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from espalier.nas.choices import InputChoice, LayerChoice
from espalier.nas.cost.blocks import Configuration, Slot, joint_states, state_of
from espalier.nas.cost.table import CostTable, cost_value, kept_edges
from espalier.nas.elastic.cost import ElasticCosts
from espalier.nas.errors import UserError
from espalier.nas.files import read_json, write_json
from espalier.nas.hashing import short_hash
from espalier.nas.space import ABSENT, SearchSpace

FORM = "latencies of blocks, 2"
"""Marks the file, and tells it from other tables of costs."""
HEAD = ("unit", "space", "origin", "device", "spec", "reference_ms", "fixed")
"""Attributes of a table that its file holds as they are."""
_known: WeakKeyDictionary[SearchSpace, dict[tuple[tuple[str, ...], ...], list[Configuration | None]]] = (
    WeakKeyDictionary()
)


@dataclass(frozen=True)
class Entry:
    """A measured block.

    Attributes:
        ms: the median, in milliseconds.
        ci95: the median's 95 % bootstrap interval.
        count: number of timed runs.
        verdict: the quality of the measurement.
        family: the block's family, see `espalier.nas.cost.blocks.Block`.
    """

    ms: float
    ci95: tuple[float, float]
    count: int
    verdict: str
    family: str


@dataclass(frozen=True)
class Calibration:
    """A correction fitted to whole networks: `fixed + sum_f scales[f] * (sum of the entries of family f)`.

    Attributes:
        form: how many numbers were fitted.
        fixed: replaces the table's.
        scales: a factor for each family.
        networks: how many networks were measured for it.
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
        space: the space's `space_fingerprint`.
        origin: the name and options of the space, plain JSON.
        device: fingerprint of the device.
        spec: how each block was timed.
        reference_ms: latency of the reference network that every block was timed in turns with. Blocks were measured
            as shares of its time.
        fixed: the part of the latency that all networks share.
        slots: which block is where, see `Slot`.
        entries: the measured blocks by key.
        calibration: None before a calibration.
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
        """The costs of the networks of `space`, calibrated if the table is.

        Args:
            space: the space that the table was measured for.
            where: the key or file that the table is from, for messages.

        Raises:
            UserError: the table is of another space.
        """
        if space_fingerprint(space) != self.space:
            raise UserError(
                where, f"the table was measured for another space, or for other sizes: {self.origin}", code="mismatch"
            )
        calibration = self.calibration
        fixed = self.fixed if calibration is None else calibration.fixed
        scales = {} if calibration is None else calibration.scales
        ms = {key: entry.ms * scales.get(entry.family, 1.0) for key, entry in self.entries.items()}
        return costs_of_slots(space, self.slots, ms, fixed)

    def sums_by_family(self, space: SearchSpace) -> Mapping[str, CostTable | ElasticCosts]:
        """The costs of the blocks of each family alone, not calibrated."""
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
    """Whether a file's content is marked as a table of blocks."""
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
    if not is_block_table(value):
        raise UserError(where, "is not a latency table of blocks; `nas lut build` writes one", code="unreadable")
    if value["form"] != FORM:
        problem = f"has the format {value['form']!r}, not {FORM!r}; build the table again with `nas lut build`"
        raise UserError(where, problem, code="unreadable")
    if value.get("unit") != "ms":
        raise UserError(f"{where}: unit", f"is {value.get('unit')!r}", allowed=["ms"], code="mismatch")
    if value.get("space") != space_fingerprint(space):
        raise UserError(
            f"{where}: space",
            f"the table was measured for another space, or for other sizes: {value.get('origin')}",
            code="mismatch",
        )
    try:
        table = BlockTable(
            unit="ms",
            space=str(value["space"]),
            origin=dict(value["origin"]),
            device=dict(value["device"]),
            spec=dict(value["spec"]),
            reference_ms=cost_value(value["reference_ms"]),
            fixed=cost_value(value["fixed"]),
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
        UserError: the space has choices between edges as well as choices that act together.
    """
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[Configuration, float]] = {}
    for slot in slots:
        costs = groups.setdefault((slot.choices, slot.dependencies), {})
        for configuration, key in slot.keys.items():
            costs[configuration] = costs.get(configuration, 0.0) + (0.0 if key is None else ms[key])
    kinds = [type(choice) for choice in space.choices().values()]
    one_by_one = all(len(choices) == 1 and not dependencies for choices, dependencies in groups)
    if one_by_one and set(kinds) <= {LayerChoice, InputChoice}:
        return _rows(space, groups, fixed)
    if InputChoice in kinds:
        problem = "choices between edges cannot be combined with choices whose blocks depend on each other"
        raise UserError("space", problem, code="unsupported")
    terms: dict[tuple[str, ...], Tensor] = {(): torch.tensor(fixed, dtype=torch.float64)}
    for (choices, dependencies), costs in groups.items():
        names = tuple(name for name in space.choices() if name in (*choices, *dependencies))
        values = [0.0 if c is None else costs[c] for c in _configurations(space, names, choices)]
        sizes = [len(space.choices()[name].options) for name in names]
        term = torch.tensor(values, dtype=torch.float64).reshape(sizes)
        terms[names] = terms[names] + term if names in terms else term
    return ElasticCosts("ms", space, terms)


def _rows(space: SearchSpace, groups: Mapping[Any, Mapping[Configuration, float]], fixed: float) -> CostTable:
    costs = {
        name: {str(option): groups[(name,), ()].get(((index,), ""), 0.0) for index, option in enumerate(choice.options)}
        for name, choice in space.choices().items()
        if isinstance(choice, LayerChoice)
    }
    return CostTable("ms", fixed, costs, kept_edges(space), space_fingerprint(space), {})


def _configurations(space: SearchSpace, names: tuple[str, ...], own: tuple[str, ...]) -> list[Configuration | None]:
    """The configurations of a slot with the choices `own` for each joint option of `names`; None where it is absent.

    Kept as long as the space: every table of one space asks for the same ones.
    """
    known = _known.setdefault(space, {})
    if (names, own) not in known:
        positions = [names.index(name) for name in own]
        known[names, own] = [
            None if (state := state_of(states, own)) == ABSENT else (tuple(joint[i] for i in positions), state)
            for joint, states in joint_states(space, names)
        ]
    return known[names, own]


def space_fingerprint(space: SearchSpace) -> str:
    """The `short_hash` of a space's layers, choices and image shape: of its sizes, not of its weights."""
    choices = [(name, choice.options) for name, choice in space.choices().items()]
    shapes = [(name, tuple(parameter.shape)) for name, parameter in space.named_parameters()]
    what = (type(space).__name__, space.input_shape, space.num_classes, choices, shapes, repr(space))
    return short_hash(repr(what))


def _slot(row: Mapping[str, Any]) -> Slot:
    keys = {(tuple(joint), str(state)): None if key is None else str(key) for joint, state, key in row["keys"]}
    return Slot(str(row["name"]), tuple(row["choices"]), keys, tuple(row["dependencies"]))


def _entry(value: Mapping[str, Any]) -> Entry:
    low, high = value["ci95"]
    interval = float(low), float(high)
    return Entry(cost_value(value["ms"]), interval, int(value["count"]), str(value["verdict"]), str(value["family"]))


def _calibration(value: Mapping[str, Any]) -> Calibration:
    scales = {str(family): cost_value(scale) for family, scale in value["scales"].items()}
    return Calibration(str(value["form"]), cost_value(value["fixed"]), scales, int(value["networks"]))
