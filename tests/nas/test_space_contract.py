"""What every search space has to do. A new space is one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from espalier.nas.space import SearchSpace
from espalier.nas.spaces.conv_macro import ConvMacro
from espalier.nas.spaces.darts import Darts
from espalier.nas.spaces.deployed import Deployed
from espalier.nas.spaces.macro import Macro
from espalier.nas.spaces.mobilenet import MobileNet
from espalier.nas.spaces.mobilenetv3 import MobileNetV3
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.spaces.vit import ViT
from espalier.testing.spaces import SpaceContract
from toy_space import ToySpace

SMALL_VIT: dict[str, Any] = {
    "embeddings": (8, 12, 16),
    "ratios": (1.5, 2),
    "heads": (1, 2, 3),
    "depths": (1, 2, 3),
    "head_size": 4,
}
SMALL_MACRO: dict[str, Any] = {"widths": (8, 8, 16, 16, 24), "cells": (1, 2, 1)}
SMALL_MOBILENETV3: dict[str, Any] = {
    "widths": (8, 8, 8, 16, 8, 16, 16, 24, 32),
    "depths": (1, 2),
    "kernels": (3, 5),
    "expansions": (1, 2, 4),
}
SPACES: dict[str, Callable[[], SearchSpace]] = {
    "toy": ToySpace,
    "nasbench201": lambda: NasBench201((1, 8, 8), 10, channels=4, cells=1),
    "nasbench201 affine": lambda: NasBench201((3, 12, 8), 3, channels=2, cells=2, affine=True),
    "darts": lambda: Darts((1, 8, 8), 10, variant="S0", channels=2, cells=3),
    "macro": lambda: Macro((1, 8, 8), 10, widths=(8, 8, 16, 24, 32), cells=(1, 2, 1), reductions=2),
    "macro entangled": lambda: Macro((1, 8, 8), 10, reductions=1, entanglement="gate", **SMALL_MACRO),
    "macro superposed": lambda: Macro((3, 9, 7), 3, reductions=2, entanglement="superpose", **SMALL_MACRO),
    "mobilenet": lambda: MobileNet((1, 8, 8), 10, width=0.25, cells=(1, 2, 1, 1, 1, 1), reductions=2),
    "conv_macro": lambda: ConvMacro((1, 8, 8), 10, width=0.25, reductions=1, dropout=0.0),
    "conv_macro superposed": lambda: ConvMacro((3, 12, 16), 3, width=0.25, dropout=0.0, entanglement="superpose"),
    "mobilenetv3": lambda: MobileNetV3((1, 8, 8), 10, reductions=2, **SMALL_MOBILENETV3),
    "mobilenetv3 superposed": lambda: MobileNetV3((3, 9, 11), 3, entanglement="superpose", **SMALL_MOBILENETV3),
    "deployed": lambda: Deployed(ToySpace(), precision=("fp32", "int8"), sparsity=(0.0, 0.5)),
    "deployed cells": lambda: Deployed(NasBench201((1, 8, 8), 10, channels=4, cells=1), sparsity=(0.5, 0.9)),
    "vit": lambda: ViT((1, 8, 8), 10, patch=4, **SMALL_VIT),
    "vit superposed": lambda: ViT((3, 8, 12), 3, patch=4, entanglement="superpose", **SMALL_VIT),
}


class TestSpaces(SpaceContract):
    """The contract, for all spaces."""

    @pytest.fixture(params=SPACES)
    def space(self, request: pytest.FixtureRequest) -> SearchSpace:
        torch.manual_seed(0)
        return SPACES[request.param]()
