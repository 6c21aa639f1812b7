"""What goes by which name in recipes and on the command line: a table for each role."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from espalier.nas.errors import UserError
from espalier.recipes.config.roles import OWN_FORMS, Role

SPACES = Role(
    "search space",
    "espalier.spaces",
    {
        "conv_macro": "espalier.nas.spaces.conv_macro:ConvMacro",
        "darts": "espalier.nas.spaces.darts:Darts",
        "macro": "espalier.nas.spaces.macro:Macro",
        "mobilenet": "espalier.nas.spaces.mobilenet:MobileNet",
        "mobilenetv3": "espalier.nas.spaces.mobilenetv3:MobileNetV3",
        "nasbench201": "espalier.nas.spaces.nasbench201:NasBench201",
        "nni": "espalier.nas.spaces.nni.space:NniSpace",
        "vit": "espalier.nas.spaces.vit:ViT",
    },
    base="espalier.nas.space:SearchSpace",
)
STRATEGIES = Role(
    "supernet strategy",
    "espalier.strategies",
    {
        "darts": "espalier.supernets.darts:DARTS",
        "drnas": "espalier.supernets.drnas:DrNAS",
        "fairnas": "espalier.supernets.fairnas:FairNAS",
        "fixed_alpha": "espalier.supernets.darts:FixedAlpha",
        "gdas": "espalier.supernets.gdas:GDAS",
        "pada": "espalier.supernets.pada:PADA",
        "proxyless": "espalier.supernets.proxyless:ProxylessNAS",
        "sandwich": "espalier.supernets.sandwich:Sandwich",
        "spos": "espalier.supernets.spos:SinglePathOneShot",
    },
    base="espalier.supernets.strategy:Strategy",
    attributes=("name", "supports"),
)
COSTS = {"params": "espalier.predictors.costs:ParamsPredictor", "macs": "espalier.predictors.costs:MacsPredictor"}
SCORES = Role(
    "score or predictor",
    "espalier.scores",
    {
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
    },
)
ENSEMBLES = {
    "az_nas": ("log", ("az_expressivity", "az_progressivity", "az_trainability", "macs")),
    "te_nas": ("sum", ("ntk", "linear_regions")),
}
"""Aggregate and members of the named rank ensembles; `a+b` is the ensemble of a and b with the aggregate `log`."""
INHERITED = "inherited"
"""The one predictor that needs a trained supernet."""
PREDICTORS = (*COSTS, *SCORES, *ENSEMBLES, INHERITED)
PRUNERS = Role(
    "pruning method",
    "espalier.pruners",
    {
        "gradual": "espalier.pruning.magnitude:GradualMagnitude",
        "growing": "espalier.pruning.growing_regularisation:GrowingRegularisation",
        "iht": "espalier.pruning.issp:HardThreshold",
        "issp": "espalier.pruning.issp:SoftShrink",
        "magnitude": "espalier.pruning.magnitude:OneShotMagnitude",
        "mfac": "espalier.pruning.mfac.obs:MFACPruner",
        "rigl": "espalier.pruning.rigl:RigL",
    },
    base="espalier.pruning.pruner:Pruner",
)
STRUCTURED = "structured"
"""The method that removes channels, heads and blocks; all others set weights to zero."""
SAMPLERS = Role(
    "sampler",
    "espalier.samplers",
    dict.fromkeys(
        ("random", "tpe", "nsga2", "regularized_evolution", "surrogate"), "espalier.nas.search.samplers:sampler"
    ),
    base="optuna.samplers:BaseSampler",
)
DATA_SOURCES = Role(
    "data source",
    "espalier.data_sources",
    {name: f"espalier.nas.data.sources.{name}:load" for name in ("digits", "folder", "npz", "parquet")},
)
IMPORTANCES = Role(
    "importance",
    "espalier.importances",
    {
        "batch_norm": "espalier.pruning.structured:BatchNormScale",
        "magnitude": "espalier.pruning.structured:Magnitude",
        "mfac": "espalier.pruning.structured:Saliency",
        "random": "espalier.pruning.structured:Random",
        "taylor": "espalier.pruning.structured:Taylor",
    },
)
DEVICES = Role(
    "device",
    "espalier.devices",
    {
        "adb": "espalier.export.devices.adb:AdbDevice",
        "local": "espalier.export.devices.local:LocalDevice",
        "replay": "espalier.export.devices.replay:ReplayDevice",
        "ssh": "espalier.export.devices.ssh:SshDevice",
    },
    attributes=("fingerprint", "measure", "measure_together", "close"),
)


def predictor_parts(name: str) -> tuple[str, ...]:
    """The texts that are joined by `+` in the name of a rank ensemble; a `+` inside a number joins nothing."""
    return tuple(dict.fromkeys(re.split(r"\+(?=[^\W\d]|[./~])", name)))


def own_score(name: str) -> str | None:
    """The name, without options, of a score or predictor that is not the platform's; None for any other text."""
    alone = SCORES.split(name)[0]
    return alone if name not in PREDICTORS and SCORES.own(alone) is not None else None


def members(name: str, *, where: str) -> tuple[str, ...]:
    """The predictors that the name of an ensemble stands for, or the name itself.

    Raises:
        UserError: no such name; `where` is the key or option that holds it.
    """
    if name in ENSEMBLES:
        return ENSEMBLES[name][1]
    parts = predictor_parts(name)
    for part in parts:
        if part in PREDICTORS and (len(parts) == 1 or part not in ENSEMBLES):
            continue
        if own_score(part) is None:
            known = [known for known in PREDICTORS if len(parts) == 1 or known not in ENSEMBLES]
            allowed: Iterable[str] = (*known, *SCORES.registered, *OWN_FORMS)
            raise UserError(where, f"unknown predictor {part!r}", allowed=allowed, given=part)
    return parts


def aggregate(name: str) -> Any:
    """How an ensemble combines the ranks of its members."""
    return ENSEMBLES[name][0] if name in ENSEMBLES else "log"


def listing() -> dict[str, list[str]]:
    """Everything that can be named, by role; what other packages register is among it."""
    from espalier.export.devices.address import FORMS
    from espalier.export.quantize.forms import METHODS
    from espalier.recipes.config.recipe_library import shipped_recipes

    return {
        "recipes": sorted(shipped_recipes()),
        "spaces": SPACES.names(),
        "strategies": STRATEGIES.names(),
        "predictors": sorted({*PREDICTORS, *SCORES.registered}),
        "pruning methods": sorted({*PRUNERS.names(), STRUCTURED}),
        "importances": IMPORTANCES.names(),
        "quantised forms": list(METHODS),
        "samplers": SAMPLERS.names(),
        "data sources": DATA_SOURCES.names(),
        "devices": [*FORMS, *DEVICES.registered],
    }
