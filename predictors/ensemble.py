"""Several predictors combined, by their ranks within a population."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal

import numpy as np

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.measurement import Estimate
from espalier.nas.predictor import Predictor
from espalier.predictors.arrays import Floats

Aggregate = Literal["log", "sum"]


class RankEnsemble:
    """Σ_s log(r_s / m), r_s the architecture's rank by member s among m architectures, 1 the worst.

    The logarithm lets one bad rank outweigh several good ones: Lee & Ham, "AZ-NAS: Assembling Zero-Cost Proxies for
    Network Architecture Search", CVPR 2024, equation 8. With `sum`, Σ_s r_s / m, as Chen et al. combine theirs,
    "Neural Architecture Search on ImageNet in Four GPU Hours", ICLR 2021.

    Such a number means something only within a population. Here it is fixed: a reference, to which the architecture is
    added. So a value depends neither on the calls before it nor on their order.

    Args:
        name: of the ensemble.
        members: at least one predictor, asked about the reference when first needed.
        reference: architectures to rank among, at least one.
        aggregate: see above.
    """

    unit = ""
    higher_is_better = True

    def __init__(
        self,
        name: str,
        members: Sequence[Predictor],
        reference: Sequence[Architecture],
        *,
        aggregate: Aggregate = "log",
    ) -> None:
        if not members or not reference:
            problem = "an ensemble needs at least one member and one reference architecture"
            raise UserError(name, problem, code="too_few")
        self.name = name
        self._members, self._reference, self._aggregate = members, reference, aggregate

    def __call__(self, architecture: Architecture) -> Estimate:
        """The aggregate, from -|members| log(m) (worst by all) to 0 with `log`; a member without a value ranks worst.

        The provenance holds `m`, the size of the population with the architecture itself.
        """
        columns = {
            member.name: [*values, member(architecture).value]
            for member, values in zip(self._members, self._reference_values, strict=True)
        }
        value = aggregate_ranks(columns, self._directions, self._aggregate)[-1]
        provenance: dict[str, str | int | float] = {"m": len(self._reference) + 1, "members": "+".join(columns)}
        return Estimate(self.name, float(value), self.unit, self.higher_is_better, provenance=provenance)

    @property
    def _directions(self) -> dict[str, bool]:
        return {member.name: member.higher_is_better for member in self._members}

    @cached_property
    def _reference_values(self) -> list[list[float]]:
        by_architecture = [[m(architecture).value for m in self._members] for architecture in self._reference]
        return [list(values) for values in zip(*by_architecture, strict=True)]


def aggregate_ranks(
    columns: Mapping[str, Sequence[float]], higher_is_better: Mapping[str, bool], aggregate: Aggregate
) -> Floats:
    """The aggregate of each of m architectures within all of them `(m,)`.

    Args:
        columns: the m values of each member, by name.
        higher_is_better: the direction of each.
        aggregate: Σ log(r / m) or Σ r / m; equal values share their mean rank, values that are not finite rank worst.
    """
    from scipy.stats import rankdata

    total: Floats = np.zeros(len(next(iter(columns.values()))))
    for name, column in columns.items():
        values = np.asarray(column, dtype=np.float64)
        upwards = values if higher_is_better[name] else -values
        ranks = rankdata(np.where(np.isfinite(values), upwards, -np.inf)) / len(values)
        total += np.log(ranks) if aggregate == "log" else ranks
    return total
