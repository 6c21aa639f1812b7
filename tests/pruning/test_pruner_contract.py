"""What every pruner of weights has to do. A new one is a line in `MEMBERS`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from espalier.nas.task import Classification
from espalier.nas.training import Diverged
from espalier.pruning.growing_regularisation import GrowingRegularisation
from espalier.pruning.issp import HardThreshold, SoftShrink
from espalier.pruning.magnitude import GradualMagnitude, OneShotMagnitude
from espalier.pruning.masks import count_zeros
from espalier.pruning.mfac.obs import MFACPruner
from espalier.pruning.patterns import Globally, Layerwise, NOfM, Pattern
from espalier.pruning.pruner import Pruner
from espalier.pruning.rigl import RigL
from espalier.pruning.weights import Weights, prunable_weights
from espalier.testing.pruners import PATTERNS, K, Loop, Make, PrunerContract, network
from user_errors import user_error


def mfac(model: nn.Module, weights: Weights, pattern: Pattern, k: int) -> Pruner:
    """M-FAC, with images of its own; each visit comes with three computations of the Fisher matrix."""
    first = next(iter(weights.values()))
    shape = (4, 6, 6) if first.dim() == 4 else (first.shape[1],)
    x = torch.randn(16, *shape, generator=torch.Generator().manual_seed(7)).to(first)
    given: dict[str, Any] = {"model": model, "task": Classification(10), "batches": [(x, torch.zeros(16).long())]}
    few: dict[str, Any] = {"rows": 8, "batch_size": 4, "recomputations": 3, "visits": 2 if k > 1 else 1}
    return MFACPruner(weights, pattern, iterations=k, **given, **few)


MEMBERS: Mapping[str, Make] = {
    "issp": lambda model, weights, pattern, k: SoftShrink(weights, pattern, iterations=k),
    "issp, every third": lambda model, weights, pattern, k: SoftShrink(
        weights, pattern, iterations=k, reselect_every=3
    ),
    "iht": lambda model, weights, pattern, k: HardThreshold(weights, pattern, iterations=k),
    "one shot": lambda model, weights, pattern, k: OneShotMagnitude(weights, pattern, iterations=k),
    "gradual": lambda model, weights, pattern, k: GradualMagnitude(weights, pattern, iterations=k, updates=4),
    "rigl": lambda model, weights, pattern, k: RigL(weights, pattern, iterations=k, every=2),
    "growing regularisation": lambda model, weights, pattern, k: GrowingRegularisation(weights, pattern, iterations=k),
    "mfac": mfac,
}
"""By a name: made for a network, its weights, a pattern and a number of iterations."""
CHANGE_GRADIENTS = {"growing regularisation"}


@pytest.fixture(params=MEMBERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PATTERNS)
def pattern(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_is_not_a_number_is_refused_by_name(name: str) -> None:
    broken = network()
    weights = prunable_weights(broken)
    with torch.no_grad():
        weights["3.weight"][0, 0, 0, 0] = torch.nan
    with user_error("3.weight", "invalid"):
        MEMBERS[name](broken, weights, Globally(100), K)
    loop = Loop(MEMBERS[name], "globally")
    loop.run(K - 2)
    with torch.no_grad():
        loop.weights["7.weight"].fill_(torch.inf)
    with pytest.raises(Diverged, match="not finite at iteration"):
        loop.run(4)


def test_a_layer_of_one_weight(name: str) -> None:
    model = nn.Sequential(nn.Linear(8, 1, bias=False), nn.Linear(1, 1))
    weights = prunable_weights(model)
    kept = MEMBERS[name](model, weights, Globally(6), 0).finalize()
    assert {n: int(mask.sum()) for n, mask in kept.items()} == {"0.weight": 2, "1.weight": 1}
    kept = MEMBERS[name](model, weights, Layerwise({"0.weight": 7, "1.weight": 0}), 0).finalize()
    assert {n: int(mask.sum()) for n, mask in kept.items()} == {"0.weight": 1, "1.weight": 1}


def test_a_mistake_is_told_in_one_line(name: str) -> None:
    loop = Loop(MEMBERS[name], "layerwise")
    with user_error("iterations", "out_of_range", says="-1"):
        MEMBERS[name](loop.model, loop.weights, loop.pattern, -1)
    state = Loop(MEMBERS[name], "layerwise", k=0)
    state.pruner.finalize()
    other = nn.Sequential(nn.Linear(4, 4))
    pruner = MEMBERS[name](other, prunable_weights(other), NOfM(2, 4), K)
    with user_error("checkpoint", "mismatch", says="0.weight"):
        pruner.load_state_dict(state.pruner.state_dict())


def test_sparsity_is_counted_by_values() -> None:
    loop = Loop(MEMBERS["one shot"], "2:4", k=0)
    loop.pruner.finalize()
    counted = count_zeros(loop.model, loop.weights)
    params = sum(parameter.numel() for parameter in loop.model.parameters())
    assert (counted.zeros, counted.prunable, counted.params) == (472, 944, params)  # 4*8*9 + 8*8*9 + 8*10
    assert counted.of_prunable == 0.5
    assert counted.of_all == 472 / params


class TestPruners(PrunerContract):
    """The contract, for all pruners that leave gradients as they are."""

    @pytest.fixture(params=[name for name in MEMBERS if name not in CHANGE_GRADIENTS])
    def make(self, request: pytest.FixtureRequest) -> Make:
        return MEMBERS[request.param]


class TestPrunersThatChangeGradients(PrunerContract):
    """The contract, for the others."""

    changes_gradients = True

    @pytest.fixture(params=sorted(CHANGE_GRADIENTS))
    def make(self, request: pytest.FixtureRequest) -> Make:
        return MEMBERS[request.param]
