"""What the published code of PA&DA does and what should be done instead: every difference an option."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from espalier.nas.data.importance import Average, Draws
from espalier.nas.errors import UserError
from espalier.supernets.option_importance import ParameterFree, Places, Scale, Scope

Mode = Literal["corrected", "reference"]
Reweight = Literal["none", "data"]
Unsampled = Literal["freeze", "decay"]
Tau = Annotated[float, Field(ge=0, le=1)]

MOST_TAU_REWEIGHTED = 0.9
"""Importance weights reach 1 / (1 - tau), and with them the size of a step."""
OF_PATHS = ("tau_paths", "scope", "scale", "places", "parameter_free")
OF_DATA = ("tau_data", "draws", "reweight")


@dataclass(frozen=True)
class PADAOptions:
    """The options of `espalier.supernets.pada.PADA` that a mode decides on, none of them left open."""

    tau_paths: float
    tau_data: float
    tau_lag: Literal[0, 1]
    scope: Scope
    scale: Scale
    places: Places
    parameter_free: ParameterFree
    average: Average
    carry: bool
    draws: Draws
    reweight: Reweight
    unsampled: Unsampled


MODES: Mapping[Mode, PADAOptions] = {
    "corrected": PADAOptions(
        tau_paths=0.5,
        tau_data=0.8,
        tau_lag=0,
        scope="choice",
        scale="size",
        places="mean",
        parameter_free="uniform",
        average="mean",
        carry=True,
        draws="systematic",
        reweight="data",
        unsampled="freeze",
    ),
    "reference": PADAOptions(
        tau_paths=1.0,
        tau_data=1.0,
        tau_lag=1,
        scope="option",
        scale="none",
        places="sum",
        parameter_free="zero",
        average="half",
        carry=False,
        draws="multinomial",
        reweight="none",
        unsampled="decay",
    ),
}


def pada_options(mode: Mode, given: Mapping[str, Any], *, paths: bool, data: bool) -> PADAOptions:
    """The options of a mode, with what is given and not None in their place.

    Args:
        paths, data: what is sampled by importance.

    Raises:
        UserError: they do not go together, or leave nothing to do.
    """
    where = "supernet.strategy"
    given = {key: value for key, value in given.items() if value is not None}
    options = replace(MODES[mode], **given)
    if not paths and not data:
        raise UserError(f"{where}.paths", "neither paths nor data are sampled by importance: that is spos")
    for key in given:
        if (key in OF_PATHS and not paths) or (key in OF_DATA and not data):
            raise UserError(f"{where}.{key}", f"has no effect where {'data' if paths else 'paths'} is false")
    if data and options.reweight == "data" and options.tau_data > MOST_TAU_REWEIGHTED:
        problem = f"{options.tau_data:g} makes importance weights as large as 1 / (1 - tau); "
        problem += f"with reweight: data it is at most {MOST_TAU_REWEIGHTED:g}"
        raise UserError(f"{where}.tau_data", problem)
    return options
