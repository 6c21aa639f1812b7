"""Calibrate a table on whole networks: correct the systematic errors of a sum of blocks.

    T(a) = c + sum_f s_f B_f(a)        B_f(a): cost of the blocks of family f in network a

with c, s_f >= 0 by least squares of relative errors (T^/T - 1). `scale` has one s for all families; `families` one for
each, drawn towards the common one by a penalty lambda sum_f (w_f (s_f - s))^2, w_f being the root mean square of B_f /
T. Which of them, and lambda, is chosen by leave-one-out errors on the calibration networks, never on others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from espalier.nas.architecture import Architecture
from espalier.nas.cost.block_table import BlockTable, Calibration
from espalier.nas.errors import UserError
from espalier.nas.space import SearchSpace

PENALTIES = (3.0, 1.0, 0.3, 0.1, 0.03)
"""lambda, in relative errors squared, from stiff to free."""
MIN_NETWORKS = 5

Fit = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From B `(networks, families)` and T `(networks,)` to `(1 + families,)`: c and the s_f."""


def check_enough(networks: int) -> None:
    """Check the number of networks to calibrate on.

    Raises:
        UserError: there are too few.
    """
    if networks < MIN_NETWORKS:
        problem = f"{networks} networks are too few to calibrate on, at least {MIN_NETWORKS} are needed"
        raise UserError("calibrate", problem, code="too_few")


def calibrate(
    table: BlockTable, space: SearchSpace, architectures: Sequence[Architecture], ms: Sequence[float]
) -> Calibration:
    """Calibrate a table on measured networks.

    Raises:
        UserError: too few networks.
    """
    check_enough(len(architectures))
    sums = table.sums_by_family(space)
    b = np.array([[cost.cost(a) for cost in sums.values()] for a in architectures])
    t = np.asarray(ms, dtype=np.float64)
    forms: dict[str, Fit] = {"scale": _scale}
    if len(sums) > 1:
        forms |= {f"families, lambda {penalty:g}": _families(penalty) for penalty in PENALTIES}
    form = min(forms, key=lambda name: _left_out_error(forms[name], b, t))
    fixed, *scales = forms[form](b, t)
    return Calibration(form, float(fixed), dict(zip(sums, map(float, scales), strict=True)), len(t))


def _left_out_error(fit: Fit, b: np.ndarray, t: np.ndarray) -> float:
    """The mean absolute relative error of each network by a fit to the others."""
    errors = []
    for i in range(len(t)):
        others = np.arange(len(t)) != i
        fixed, *scales = fit(b[others], t[others])
        errors.append(abs((fixed + b[i] @ scales) / t[i] - 1))
    return float(np.mean(errors))


def _scale(b: np.ndarray, t: np.ndarray) -> np.ndarray:
    fixed, scale = _least_squares(np.column_stack([1 / t, b.sum(axis=1) / t]), np.ones(len(t)))
    return np.array([fixed, *[scale] * b.shape[1]])


def _families(penalty: float) -> Fit:
    def fit(b: np.ndarray, t: np.ndarray) -> np.ndarray:
        common = _scale(b, t)[1]
        shares = b / t[:, None]
        held = np.sqrt(penalty) * np.diag(np.sqrt((shares**2).mean(axis=0)))
        rows = np.block([[1 / t[:, None], shares], [np.zeros((b.shape[1], 1)), held]])
        return _least_squares(rows, np.concatenate([np.ones(len(t)), held.sum(axis=1) * common]))

    return fit


def _least_squares(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Argmin |a x - y|^2 with x >= 0."""
    from scipy.optimize import nnls

    found: Any = nnls(a, y)[0]
    return np.asarray(found)
