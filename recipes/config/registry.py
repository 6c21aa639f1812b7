"""What goes by which name in a recipe and on the command line. Everything is imported when it is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from espalier.nas.errors import UserError

SPACES = {
    "conv_macro": "espalier.nas.spaces.conv_macro:ConvMacro",
    "darts": "espalier.nas.spaces.darts:Darts",
    "macro": "espalier.nas.spaces.macro:Macro",
    "mobilenet": "espalier.nas.spaces.mobilenet:MobileNet",
    "mobilenetv3": "espalier.nas.spaces.mobilenetv3:MobileNetV3",
    "nasbench201": "espalier.nas.spaces.nasbench201:NasBench201",
    "nni": "espalier.nas.spaces.nni.space:NniSpace",
    "vit": "espalier.nas.spaces.vit:ViT",
}
STRATEGIES = {
    "darts": "espalier.supernets.darts:DARTS",
    "drnas": "espalier.supernets.drnas:DrNAS",
    "fairnas": "espalier.supernets.fairnas:FairNAS",
    "fixed_alpha": "espalier.supernets.darts:FixedAlpha",
    "gdas": "espalier.supernets.gdas:GDAS",
    "pada": "espalier.supernets.pada:PADA",
    "proxyless": "espalier.supernets.proxyless:ProxylessNAS",
    "sandwich": "espalier.supernets.sandwich:Sandwich",
    "spos": "espalier.supernets.spos:SinglePathOneShot",
}
COSTS = {"params": "espalier.predictors.costs:ParamsPredictor", "macs": "espalier.predictors.costs:MacsPredictor"}
SCORES = {
    "az_expressivity": "espalier.predictors.zero_cost.az_nas:AZExpressivity",
    "az_progressivity": "espalier.predictors.zero_cost.az_nas:AZProgressivity",
    "az_trainability": "espalier.predictors.zero_cost.az_nas:AZTrainability",
    "epe_nas": "espalier.predictors.zero_cost.epe_nas:EPENAS",
    "fisher": "espalier.predictors.zero_cost.fisher:Fisher",
    "grad_norm": "espalier.predictors.zero_cost.grad_norm:GradNorm",
    "gradsign": "espalier.predictors.zero_cost.gradsign:GradSign",
    "grasp": "espalier.predictors.zero_cost.grasp:GraSP",
    "jacob_cov": "espalier.predictors.zero_cost.jacob_cov:JacobCov",
    "l2_norm": "espalier.predictors.zero_cost.l2_norm:L2Norm",
    "linear_regions": "espalier.predictors.zero_cost.linear_regions:LinearRegions",
    "meco": "espalier.predictors.zero_cost.meco:MeCo",
    "meco_opt": "espalier.predictors.zero_cost.meco:MeCoOpt",
    "naswot": "espalier.predictors.zero_cost.naswot:NASWOT",
    "ntk": "espalier.predictors.zero_cost.ntk:NTKCondition",
    "plain": "espalier.predictors.zero_cost.plain:Plain",
    "snip": "espalier.predictors.zero_cost.snip:SNIP",
    "swap": "espalier.predictors.zero_cost.swap:SWAP",
    "swap_reg": "espalier.predictors.zero_cost.swap:RegularisedSWAP",
    "synflow": "espalier.predictors.zero_cost.synflow:SynFlow",
    "vkdnw": "espalier.predictors.zero_cost.vkdnw:VKDNW",
    "zen": "espalier.predictors.zero_cost.zen:Zen",
    "zico": "espalier.predictors.zero_cost.zico:ZiCo",
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
    "gradual": "espalier.pruning.magnitude:GradualMagnitude",
    "growing": "espalier.pruning.growing_regularisation:GrowingRegularisation",
    "iht": "espalier.pruning.issp:HardThreshold",
    "issp": "espalier.pruning.issp:SoftShrink",
    "magnitude": "espalier.pruning.magnitude:OneShotMagnitude",
    "mfac": "espalier.pruning.mfac.obs:MFACPruner",
    "rigl": "espalier.pruning.rigl:RigL",
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

    from espalier.export.devices.address import FORMS
    from espalier.export.quantize.forms import METHODS
    from espalier.nas.data import SOURCES
    from espalier.nas.search.settings import SamplerName
    from espalier.recipes.config.recipe_library import shipped_recipes

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
