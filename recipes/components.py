"""What goes by which name in a recipe and on the command line. Everything is imported when it is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from nas.errors import UserError

SPACES = {
    "conv_macro": "nas.spaces.conv_macro:ConvMacro",
    "darts": "nas.spaces.darts:Darts",
    "macro": "nas.spaces.macro:Macro",
    "mobilenet": "nas.spaces.mobilenet:MobileNet",
    "mobilenetv3": "nas.spaces.mobilenetv3:MobileNetV3",
    "nasbench201": "nas.spaces.nasbench201:NasBench201",
    "nni": "nas.spaces.nni.space:NniSpace",
    "vit": "nas.spaces.vit:ViT",
}
STRATEGIES = {
    "darts": "supernets.darts:DARTS",
    "drnas": "supernets.drnas:DrNAS",
    "fairnas": "supernets.fairnas:FairNAS",
    "fixed_alpha": "supernets.darts:FixedAlpha",
    "gdas": "supernets.gdas:GDAS",
    "pada": "supernets.pada:PADA",
    "proxyless": "supernets.proxyless:ProxylessNAS",
    "sandwich": "supernets.sandwich:Sandwich",
    "spos": "supernets.spos:SinglePathOneShot",
}
COSTS = {"params": "predictors.costs:ParamsPredictor", "macs": "predictors.costs:MacsPredictor"}
SCORES = {
    "az_expressivity": "predictors.zero_cost.az_nas:AZExpressivity",
    "az_progressivity": "predictors.zero_cost.az_nas:AZProgressivity",
    "az_trainability": "predictors.zero_cost.az_nas:AZTrainability",
    "epe_nas": "predictors.zero_cost.epe_nas:EPENAS",
    "fisher": "predictors.zero_cost.fisher:Fisher",
    "grad_norm": "predictors.zero_cost.grad_norm:GradNorm",
    "gradsign": "predictors.zero_cost.gradsign:GradSign",
    "grasp": "predictors.zero_cost.grasp:GraSP",
    "jacob_cov": "predictors.zero_cost.jacob_cov:JacobCov",
    "l2_norm": "predictors.zero_cost.l2_norm:L2Norm",
    "linear_regions": "predictors.zero_cost.linear_regions:LinearRegions",
    "meco": "predictors.zero_cost.meco:MeCo",
    "meco_opt": "predictors.zero_cost.meco:MeCoOpt",
    "naswot": "predictors.zero_cost.naswot:NASWOT",
    "ntk": "predictors.zero_cost.ntk:NTKCondition",
    "plain": "predictors.zero_cost.plain:Plain",
    "snip": "predictors.zero_cost.snip:SNIP",
    "swap": "predictors.zero_cost.swap:SWAP",
    "swap_reg": "predictors.zero_cost.swap:RegularisedSWAP",
    "synflow": "predictors.zero_cost.synflow:SynFlow",
    "vkdnw": "predictors.zero_cost.vkdnw:VKDNW",
    "zen": "predictors.zero_cost.zen:Zen",
    "zico": "predictors.zero_cost.zico:ZiCo",
}
ENSEMBLES = {
    "az_nas": ("log", ("az_expressivity", "az_progressivity", "az_trainability", "macs")),
    "te_nas": ("sum", ("ntk", "linear_regions")),
}
"""Aggregate and members of the named rank ensembles; `a+b` is the ensemble of a and b with the aggregate `log`."""
INHERITED = "inherited"
"""The one predictor that needs a trained supernet."""
PREDICTORS = (*COSTS, *SCORES, *ENSEMBLES, INHERITED)
PRUNERS = {
    "gradual": "pruning.magnitude:GradualMagnitude",
    "growing": "pruning.growing_regularisation:GrowingRegularisation",
    "iht": "pruning.issp:HardThreshold",
    "issp": "pruning.issp:SoftShrink",
    "magnitude": "pruning.magnitude:OneShotMagnitude",
    "mfac": "pruning.mfac.obs:MFACPruner",
    "rigl": "pruning.rigl:RigL",
}
STRUCTURED = "structured"
"""The method that removes channels, heads and blocks; all others set weights to zero."""


def load(table: Mapping[str, str], name: str, *, where: str) -> Any:
    """The class that `name` stands for in one of the tables above.

    Raises:
        UserError: no such name; `where` is the key or option that holds it.
    """
    if name not in table:
        raise UserError(where, f"nothing is called {name!r}", allowed=table, given=name)
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def members(name: str, *, where: str) -> tuple[str, ...]:
    """The predictors that the name of an ensemble stands for, or the name itself.

    Raises:
        UserError: no such name; `where` is the key or option that holds it.
    """
    if name in ENSEMBLES:
        return ENSEMBLES[name][1]
    parts = tuple(dict.fromkeys(name.split("+")))
    for part in parts:
        allowed = [known for known in PREDICTORS if known not in ENSEMBLES] if len(parts) > 1 else PREDICTORS
        if part not in allowed:
            raise UserError(where, f"no predictor is called {part!r}", allowed=allowed, given=part)
    return parts


def aggregate(name: str) -> Any:
    """How an ensemble combines the ranks of its members."""
    return ENSEMBLES[name][0] if name in ENSEMBLES else "log"


def listing() -> dict[str, list[str]]:
    """Everything that can be named, by role."""
    from typing import get_args

    from export.devices.address import FORMS
    from export.quantize.forms import METHODS
    from nas.data import SOURCES
    from nas.search.settings import SamplerName
    from recipes.shipped import shipped_recipes

    return {
        "recipes": sorted(shipped_recipes()),
        "spaces": sorted(SPACES),
        "strategies": sorted(STRATEGIES),
        "predictors": sorted(PREDICTORS),
        "pruning methods": sorted((*PRUNERS, STRUCTURED)),
        "quantised forms": list(METHODS),
        "samplers": sorted(get_args(SamplerName)),
        "data sources": sorted(SOURCES),
        "devices": list(FORMS),
    }
