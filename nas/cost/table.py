"""The costs of a space's operators as a table; an architecture's cost, and the expected cost, are sums over it.

    E = fixed + sum_i sum_j p_ij F_ij

Cai, Zhu & Han, "ProxylessNAS", ICLR 2019, equations 2 and 3: p_ij is the probability of option j of choice i, F_ij its
cost. Users of a table need not know who measured it, or on which device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from espalier.nas.architecture import Architecture, Option
from espalier.nas.choices import InputChoice, LayerChoice
from espalier.nas.cost.layer_sites import layer_fingerprint
from espalier.nas.errors import UserError
from espalier.nas.files import write_json
from espalier.nas.space import SearchSpace

Unit = Literal["ms", "macs", "params"]
Costs = Mapping[str, Mapping[str, float]]
"""The cost of each option of each layer choice, by name; for a choice that cells share, the sum over its sites."""


@dataclass(frozen=True)
class CostTable:
    """The costs of one space's operators; made by `cost_table` and `parse_cost_table`.

    Choices between inputs have no cost of their own. Where they keep some edges, only the kept edges count.

    Attributes:
        unit: of all numbers.
        fixed: the cost that all architectures share (stem, head).
        costs: by choice and option, the options in the space's order.
        kept: for each choice between edges and each of its options, the names of the edges kept.
        space: the space's `layer_fingerprint`.
        provenance: where the numbers come from, plain JSON.
    """

    unit: Unit
    fixed: float
    costs: Costs
    kept: Mapping[str, Mapping[Option, Sequence[str]]]
    space: str
    provenance: Mapping[str, Any]
    _vectors: dict[Any, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def cost(self, architecture: Architecture) -> float:
        """The cost of one architecture of the space, in the table's unit."""
        dropped = self._edges - {e for node, options in self.kept.items() for e in options[architecture[node]]}
        return self.fixed + sum(row[str(architecture[name])] for name, row in self.costs.items() if name not in dropped)

    @property
    def choices(self) -> Collection[str]:
        """The choices whose options have costs."""
        return self.costs.keys()

    def expected(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """E, a differentiable scalar, of architectures drawn choice by choice.

        Which edges are kept is drawn uniformly: if a node keeps k of m edges, each edge counts k / m times.

        Args:
            probabilities: `(options,)` for each choice of the table; further ones are ignored.
        """
        p = torch.cat([probabilities[name] for name in self.costs])
        return self.fixed + p @ self._costs_like(p)

    def cheapest(self, open_options: Mapping[str, Sequence[int]]) -> float:
        """The cost of the cheapest architecture of a region."""
        return self._extreme(open_options, min)

    def most_expensive(self, open_options: Mapping[str, Sequence[int]]) -> float:
        """The cost of the most expensive architecture of a region."""
        return self._extreme(open_options, max)

    def write(self, path: Path) -> None:
        """Write it as JSON, atomically."""
        rows = {name: dict(row) for name, row in self.costs.items()}
        provenance = dict(self.provenance)
        head = {"unit": self.unit, "space": self.space, "fixed": self.fixed}
        write_json(path, {**head, "choices": rows, "provenance": provenance})

    @property
    def _edges(self) -> set[str]:
        return {edge for options in self.kept.values() for edges in options.values() for edge in edges}

    def _costs_like(self, p: Tensor) -> Tensor:
        key = (p.device, p.dtype)
        if key not in self._vectors:
            shares = dict.fromkeys(self.costs, 1.0)
            for options in self.kept.values():
                held = [edge for edges in options.values() for edge in edges]
                shares |= {edge: held.count(edge) / len(options) for edge in held}
            values = [shares[name] * cost for name, row in self.costs.items() for cost in row.values()]
            self._vectors[key] = torch.tensor(values, dtype=p.dtype, device=p.device)
        return self._vectors[key]

    def _extreme(self, open_options: Mapping[str, Sequence[int]], pick: Callable[[Iterable[float]], float]) -> float:
        best = {name: pick([list(row.values())[i] for i in open_options[name]]) for name, row in self.costs.items()}
        nodes = [
            pick([sum(best[edge] for edge in list(options.values())[i]) for i in open_options[node]])
            for node, options in self.kept.items()
        ]
        return self.fixed + sum(nodes) + sum(cost for name, cost in best.items() if name not in self._edges)


def cost_table(
    space: SearchSpace,
    *,
    unit: str,
    fixed: object,
    costs: Mapping[str, Mapping[str, object]],
    provenance: Mapping[str, Any],
    where: str,
) -> CostTable:
    """A table with exactly the choices and options of a space.

    Args:
        space: the space.
        unit: see `Unit`.
        fixed: the cost that all architectures share.
        costs: by choice and option.
        provenance: where the numbers come from, plain JSON.
        where: the file or key that the numbers come from, for messages.

    Raises:
        UserError: an unknown unit, a choice or option without a cost or unknown to the space, or a cost that is not a
            number of at least 0; the choice and option are named.
    """
    if unit not in get_args(Unit):
        raise UserError(f"{where}: unit", f"unknown unit {unit!r}", allowed=get_args(Unit), given=unit)
    layers = {name: choice.options for name, choice in space.choices().items() if isinstance(choice, LayerChoice)}
    _same_names(costs, layers, f"{where}: choices.", "choice")
    for name, options in layers.items():
        _same_names(costs[name], options, f"{where}: {name}.", "option")
    return CostTable(
        unit=unit,  # type: ignore[arg-type]
        fixed=_number(fixed, f"{where}: fixed"),
        costs={
            name: {str(o): _number(costs[name][str(o)], f"{where}: {name}.{o}") for o in options}
            for name, options in layers.items()
        },
        kept=kept_edges(space),
        space=layer_fingerprint(space),
        provenance=provenance,
    )


def kept_edges(space: SearchSpace) -> dict[str, dict[Option, list[str]]]:
    """For each choice between edges and each of its options, the names of the edges kept."""
    return {
        name: {o: [choice.edges[i] for i in s] for o, s in zip(choice.options, choice.subsets, strict=True)}
        for name, choice in space.choices().items()
        if isinstance(choice, InputChoice) and choice.edges
    }


def parse_cost_table(value: Any, space: SearchSpace, *, where: str) -> CostTable:
    """The table that `CostTable.write` wrote.

    Args:
        value: the content of the file, as JSON gives it.
        space: the space that the table is of.
        where: the file, for messages.

    Raises:
        UserError: as `cost_table`, or the value has another form.
    """
    wanted = {"unit": str, "space": str, "fixed": object, "choices": dict, "provenance": dict}
    if not isinstance(value, dict):
        raise UserError(where, f"a table of costs is a JSON object, not {type(value).__name__}", code="unreadable")
    _same_names(value, wanted, f"{where}: ", "key")
    for key, kind in wanted.items():
        if not isinstance(value[key], kind):
            raise UserError(f"{where}: {key}", f"has the wrong type, {type(value[key]).__name__}")
    for name, row in value["choices"].items():
        if not isinstance(row, dict):
            raise UserError(
                f"{where}: {name}", f"must be an object with the cost of each option, not {type(row).__name__}"
            )
    table = cost_table(
        space,
        unit=value["unit"],
        fixed=value["fixed"],
        costs=value["choices"],
        provenance=value["provenance"],
        where=where,
    )
    if table.space != value["space"]:
        raise UserError(
            f"{where}: space",
            "the table was made for other sizes: channels, cells or images differ",
            code="mismatch",
        )
    return table


def _same_names(given: Iterable[str], wanted: Iterable[object], prefix: str, kind: str) -> None:
    given, allowed = list(given), [str(name) for name in wanted]
    for name in given:
        if name not in allowed:
            raise UserError(f"{prefix}{name}", f"no such {kind}", allowed=allowed, given=name)
    for name in allowed:
        if name not in given:
            raise UserError(f"{prefix}{name}", f"there is no entry for this {kind}", code="missing")


def cost_value(value: object) -> float:
    """A cost out of JSON.

    Raises:
        ValueError: not a finite number of at least 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"must be a number of at least 0, not {value!r}")
    return float(value)


def _number(value: object, where: str) -> float:
    try:
        return cost_value(value)
    except ValueError as error:
        raise UserError(where, str(error), code="out_of_range") from error
