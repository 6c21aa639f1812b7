"""What every pruner of weights has to do. A new one is a line in `MEMBERS`."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.nas.task import Classification
from espalier.nas.training import Diverged
from espalier.pruning.allocation import erk
from espalier.pruning.growing_regularisation import GrowingRegularisation
from espalier.pruning.issp import HardThreshold, SoftShrink
from espalier.pruning.magnitude import GradualMagnitude, OneShotMagnitude
from espalier.pruning.masks import count_zeros
from espalier.pruning.mfac.obs import MFACPruner
from espalier.pruning.patterns import Globally, Layerwise, NOfM, Pattern
from espalier.pruning.pruner import Pruner
from espalier.pruning.rigl import RigL
from espalier.pruning.weights import Weights, prunable_weights
from user_errors import user_error

Make = Callable[[nn.Module, Weights, Pattern, int], Pruner]


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
"""Those that say so."""
PATTERNS: Mapping[str, Callable[[Weights], Pattern]] = {
    "layerwise": lambda weights: Layerwise(erk(weights, 0.8)),
    "globally": lambda weights: Globally(round(0.8 * sum(weight.numel() for weight in weights.values()))),
    "2:4": lambda weights: NOfM(2, 4),
}
OPTIMISERS: Mapping[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=3e-3, weight_decay=1e-3),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3),
}
K = 8


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    body = [nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).to(
        memory_format=torch.channels_last
    )


class Loop:
    """The loop that a pruner is promised: backward, before_step, the optimiser, step."""

    def __init__(self, make: Make, pattern: str, *, optimiser: str = "adam", k: int = K, dtype: Any = None) -> None:
        self.model = network().to(dtype=dtype)
        self.weights = prunable_weights(self.model)
        self.pattern = PATTERNS[pattern](self.weights)
        self.pruner = make(self.model, self.weights, self.pattern, k)
        self.optimizer = OPTIMISERS[optimiser](self.model.parameters())
        self.steps = 0

    def backward(self) -> None:
        generator = torch.Generator().manual_seed(self.steps)
        weight = next(iter(self.weights.values()))
        x = torch.randn(16, 4, 6, 6, generator=generator).to(weight)
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(x).float(), torch.randint(10, (16,), generator=generator)).backward()
        self.steps += 1

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.backward()
            self.pruner.before_step()
            self.optimizer.step()
            self.pruner.step()

    def state(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.optimizer, "pruner": self.pruner}
        buffer = io.BytesIO()
        torch.save({"steps": self.steps} | {name: part.state_dict() for name, part in parts.items()}, buffer)
        return dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))

    def load(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for name in ("model", "optimizer", "pruner"):
            getattr(self, name).load_state_dict(state[name])


@pytest.fixture(params=MEMBERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PATTERNS)
def pattern(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def assert_exact(loop: Loop) -> None:
    """The zeros of the network, by its values, are those of the pattern."""
    zeros = {name: int((weight == 0).sum()) for name, weight in loop.weights.items()}
    if isinstance(loop.pattern, Layerwise):
        assert zeros == dict(loop.pattern.zeros)
    elif isinstance(loop.pattern, Globally):
        assert sum(zeros.values()) == loop.pattern.zeros
    else:
        for weight in loop.weights.values():
            groups = (weight.movedim(1, -1).reshape(-1, 4) == 0).sum(dim=1)
            assert set(groups.tolist()) == {2}
    assert loop.pruner.masks is not None
    assert all(torch.equal(loop.pruner.masks[name], weight != 0) for name, weight in loop.weights.items())


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_the_counts_are_exact_and_stay_so(name: str, pattern: str, optimiser: str) -> None:
    loop = Loop(MEMBERS[name], pattern, optimiser=optimiser)
    loop.run(K - 1)
    assert loop.pruner.masks is None
    loop.run(1)
    assert_exact(loop)
    masks = {name: kept.clone() for name, kept in loop.pruner.finalize().items()}
    loop.run(5)
    assert_exact(loop)
    assert all(torch.equal(kept, masks[name]) for name, kept in loop.pruner.finalize().items())


def test_it_touches_weights_alone(name: str, pattern: str) -> None:
    loop = Loop(MEMBERS[name], pattern)
    others = {n: tensor for n, tensor in loop.model.state_dict().items() if n not in loop.weights}

    def grads() -> dict[str, Tensor]:
        return {n: parameter.grad for n, parameter in loop.model.named_parameters() if parameter.grad is not None}

    def unchanged(work: Callable[[], object], *, but: frozenset[str] = frozenset()) -> None:
        moments = {
            (i, key): value for i, row in loop.optimizer.state_dict()["state"].items() for key, value in row.items()
        }
        seen = {**others, **{f"grad of {n}": grad for n, grad in grads().items() if n not in but}, **moments}
        before = {key: tensor.clone() for key, tensor in seen.items()}
        work()
        assert all(torch.equal(tensor, before[key]) for key, tensor in seen.items())

    for _ in range(K + 2):
        loop.backward()
        unchanged(loop.pruner.before_step, but=frozenset(loop.weights) if name in CHANGE_GRADIENTS else frozenset())
        loop.optimizer.step()
        unchanged(loop.pruner.step)


@pytest.mark.parametrize("stop", [1, 4, K, K + 2])
def test_resumed_it_gives_the_same_weights_to_the_bit(name: str, pattern: str, stop: int) -> None:
    whole, first, second = (Loop(MEMBERS[name], pattern) for _ in range(3))
    whole.run(K + 4)
    first.run(stop)
    second.load(first.state())
    second.run(K + 4 - stop)
    for key, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[key]), key


def test_it_takes_weights_in_bfloat16(name: str, pattern: str) -> None:
    loop = Loop(MEMBERS[name], pattern, optimiser="momentum", dtype=torch.bfloat16)
    loop.run(K + 2)
    assert_exact_where_kept_weights_may_be_zero(loop)


def assert_exact_where_kept_weights_may_be_zero(loop: Loop) -> None:
    """In bfloat16 a kept weight can be rounded to zero: the masks are what is exact."""
    assert loop.pruner.masks is not None
    reference = loop.pattern.select({name: kept.float() for name, kept in loop.pruner.masks.items()})
    assert all(torch.equal(kept, reference[name]) for name, kept in loop.pruner.masks.items())
    assert all(not loop.weights[name][~kept].any() for name, kept in loop.pruner.masks.items())


def test_zero_iterations_prune_what_is_given(name: str, pattern: str) -> None:
    given = Loop(MEMBERS[name], pattern, k=0)
    given.pruner.finalize()
    assert_exact(given)
    stepped = Loop(MEMBERS[name], pattern, k=0)
    stepped.run(1)
    assert_exact(stepped)


def test_finalising_early_prunes_to_the_end(name: str, pattern: str) -> None:
    loop = Loop(MEMBERS[name], pattern)
    loop.run(3)
    loop.pruner.finalize()
    assert_exact(loop)
    loop.run(K)
    assert_exact(loop)


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
    with pytest.raises(Diverged, match="holds values that are not finite at iteration"):
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
