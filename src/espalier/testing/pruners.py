"""What every pruner of weights must do."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.pruning.allocation import erk
from espalier.pruning.patterns import Globally, Layerwise, NOfM, Pattern
from espalier.pruning.pruner import Pruner
from espalier.pruning.weights import Weights, prunable_weights

Make = Callable[[nn.Module, Weights, Pattern, int], Pruner]
"""Makes a pruner from a network, its weights, a pattern and a number of iterations."""
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
"""Iterations until the masks are fixed."""


class PrunerContract:
    """The contract of a pruner of weights. A subclass overrides the fixture `make`."""

    changes_gradients = False
    """Whether the pruner changes the gradients of the weights that it prunes."""

    @pytest.fixture
    def make(self) -> Make:
        """Makes the pruner, as in `lambda model, weights, pattern, k: MyPruner(weights, pattern, iterations=k)`."""
        raise NotImplementedError

    @pytest.fixture(params=PATTERNS)
    def pattern(self, request: pytest.FixtureRequest) -> str:
        """How zeros are laid out, by its name in `PATTERNS`."""
        return str(request.param)

    @pytest.mark.parametrize("optimiser", OPTIMISERS)
    def test_the_counts_are_exact_and_stay_so(self, make: Make, pattern: str, optimiser: str) -> None:
        loop = Loop(make, pattern, optimiser=optimiser)
        loop.run(K - 1)
        assert loop.pruner.masks is None
        loop.run(1)
        assert_exact(loop)
        masks = {name: kept.clone() for name, kept in loop.pruner.finalize().items()}
        loop.run(5)
        assert_exact(loop)
        assert all(torch.equal(kept, masks[name]) for name, kept in loop.pruner.finalize().items())

    def test_it_touches_weights_alone(self, make: Make, pattern: str) -> None:
        loop = Loop(make, pattern)
        others = {n: tensor for n, tensor in loop.model.state_dict().items() if n not in loop.weights}

        def grads() -> dict[str, Tensor]:
            return {n: parameter.grad for n, parameter in loop.model.named_parameters() if parameter.grad is not None}

        def unchanged(work: Callable[[], object], *, but: frozenset[str] = frozenset()) -> None:
            rows = loop.optimizer.state_dict()["state"].items()
            moments = {f"{key} of {i}": value for i, row in rows for key, value in row.items()}
            seen = {**others, **{f"grad of {n}": grad for n, grad in grads().items() if n not in but}, **moments}
            before = {key: tensor.clone() for key, tensor in seen.items()}
            work()
            assert all(torch.equal(tensor, before[key]) for key, tensor in seen.items())

        for _ in range(K + 2):
            loop.backward()
            unchanged(loop.pruner.before_step, but=frozenset(loop.weights) if self.changes_gradients else frozenset())
            loop.optimizer.step()
            unchanged(loop.pruner.step)

    @pytest.mark.parametrize("stop", [1, 4, K, K + 2])
    def test_resumed_it_gives_the_same_weights_to_the_bit(self, make: Make, pattern: str, stop: int) -> None:
        whole, first, second = (Loop(make, pattern) for _ in range(3))
        whole.run(K + 4)
        first.run(stop)
        second.load(first.state())
        second.run(K + 4 - stop)
        for key, tensor in whole.model.state_dict().items():
            assert torch.equal(tensor, second.model.state_dict()[key]), key

    def test_it_takes_weights_in_bfloat16(self, make: Make, pattern: str) -> None:
        loop = Loop(make, pattern, optimiser="momentum", dtype=torch.bfloat16)
        loop.run(K + 2)
        assert_exact_where_kept_weights_may_be_zero(loop)

    def test_zero_iterations_prune_what_is_given(self, make: Make, pattern: str) -> None:
        given = Loop(make, pattern, k=0)
        given.pruner.finalize()
        assert_exact(given)
        stepped = Loop(make, pattern, k=0)
        stepped.run(1)
        assert_exact(stepped)

    def test_finalising_early_prunes_to_the_end(self, make: Make, pattern: str) -> None:
        loop = Loop(make, pattern)
        loop.run(3)
        loop.pruner.finalize()
        assert_exact(loop)
        loop.run(K)
        assert_exact(loop)


def network(seed: int = 0) -> nn.Module:
    """A small convolutional network."""
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
        parts: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer, "pruner": self.pruner}
        buffer = io.BytesIO()
        torch.save({"steps": self.steps} | {name: part.state_dict() for name, part in parts.items()}, buffer)
        return dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))

    def load(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for name in ("model", "optimizer", "pruner"):
            getattr(self, name).load_state_dict(state[name])


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


def assert_exact_where_kept_weights_may_be_zero(loop: Loop) -> None:
    """In bfloat16 a kept weight can be rounded to zero: the masks are what is exact."""
    assert loop.pruner.masks is not None
    reference = loop.pattern.select({name: kept.float() for name, kept in loop.pruner.masks.items()})
    assert all(torch.equal(kept, reference[name]) for name, kept in loop.pruner.masks.items())
    assert all(not loop.weights[name][~kept].any() for name, kept in loop.pruner.masks.items())
