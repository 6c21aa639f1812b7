"""What the modes of PA&DA stand for, and which of its options go together.

The authors' code differs from what its paper describes, and from what an unbiased gradient needs. Each difference is an
option of its own; a mode sets them all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from espalier.nas.errors import UserError

Mode = Literal["corrected", "reference"]
Reweight = Literal["none", "data"]
Unsampled = Literal["freeze", "decay"]
Tau = Annotated[float, Field(ge=0, le=1)]

MAX_REWEIGHTED_TAU = 0.9
"""Importance weights reach 1 / (1 - tau), and the size of a step grows with them."""
FROM_MODE: Any = None
"""The default of an option that the mode decides; `fill` replaces it. Typed so that the option itself is never None."""
OF_PATHS = ("tau_paths", "scope", "scale", "places", "parameter_free")
OF_DATA = ("tau_data", "draws", "reweight")

MODES: Mapping[Mode, Mapping[str, Any]] = {
    "corrected": {
        "tau_paths": 0.5,
        "tau_data": 0.8,
        "tau_lag": 0,
        "scope": "choice",
        "scale": "size",
        "places": "mean",
        "parameter_free": "uniform",
        "average": "mean",
        "carry": True,
        "draws": "systematic",
        "reweight": "data",
        "unsampled": "freeze",
    },
    "reference": {
        "tau_paths": 1.0,
        "tau_data": 1.0,
        "tau_lag": 1,
        "scope": "option",
        "scale": "none",
        "places": "sum",
        "parameter_free": "zero",
        "average": "half",
        "carry": False,
        "draws": "multinomial",
        "reweight": "none",
        "unsampled": "decay",
    },
}


def fill(strategy: Any, mode: Mode) -> list[str]:
    """Give every option that is still None the value that it has in the mode.

    Returns:
        The options that were not None.
    """
    given = [name for name in MODES[mode] if getattr(strategy, name) is not None]
    for name, value in MODES[mode].items():
        if name not in given:
            setattr(strategy, name, value)
    return given


def check_options(given: Collection[str], *, paths: bool, data: bool, reweight: Reweight, tau_data: float) -> None:
    """Check that the options go together.

    Args:
        given: the options that do not come from the mode.
        paths: whether paths are sampled by importance.
        data: whether images are.
        reweight: as in `PADA`.
        tau_data: as in `PADA`.

    Raises:
        UserError: they do not go together, or neither paths nor data are sampled.
    """
    where = "supernet.strategy"
    if not paths and not data:
        problem = "paths and data are both false, which leaves uniform sampling: use strategy spos"
        raise UserError(f"{where}.paths", problem, code="conflict")
    for key in given:
        if (key in OF_PATHS and not paths) or (key in OF_DATA and not data):
            problem = f"has no effect where {'data' if paths else 'paths'} is false"
            raise UserError(f"{where}.{key}", problem, code="conflict")
    if data and reweight == "data" and tau_data > MAX_REWEIGHTED_TAU:
        problem = f"{tau_data:g} makes importance weights as large as 1 / (1 - tau); "
        problem += f"with reweight: data it must be at most {MAX_REWEIGHTED_TAU:g}"
        raise UserError(f"{where}.tau_data", problem, code="out_of_range")
