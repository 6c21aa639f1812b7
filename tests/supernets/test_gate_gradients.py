"""b_j = dL/dg_j from one path, against all paths at once."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.nas.choices import InputChoice, LayerChoice
from espalier.nas.gates import Gate, Gates, Mixture
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.darts import Darts
from espalier.nas.spaces.mobilenet import MobileNet
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.supernets.gate_gradients import alpha_gradient, gate_gradients
from toy_space import ToyCell

SPACES: dict[str, Callable[[], SearchSpace]] = {
    "toy cell": ToyCell,
    "nasbench201": lambda: NasBench201((1, 8, 8), 10, channels=2, cells=1),
    "darts": lambda: Darts((1, 8, 8), 10, variant="S3", channels=2, cells=3),
    "mobilenet": lambda: MobileNet((1, 8, 8), 10, widths=(8,) * 9, cells=(1, 1, 2, 1, 1, 1), reductions=1),
}


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    torch.manual_seed(0)
    return SPACES[request.param]().double().train()


def batch(space: SearchSpace) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, *space.input_shape, generator=generator, dtype=torch.float64)
    return x, torch.randint(10, (4,), generator=generator)


def layer_choices(space: SearchSpace) -> dict[str, LayerChoice]:
    return {name: choice for name, choice in space.choices().items() if isinstance(choice, LayerChoice)}


def with_open_edges(space: SearchSpace, gates: Gates) -> dict[str, Gate]:
    edges = {n: c.open(range(len(c.options))) for n, c in space.choices().items() if isinstance(c, InputChoice)}
    return {**gates, **edges}


def one_hot_mixtures(space: SearchSpace, path: dict[str, int]) -> dict[str, Mixture]:
    return {
        name: Mixture(
            F.one_hot(torch.tensor(path[name]), len(choice.options)).double().requires_grad_(),
            tuple(range(len(choice.options))),
        )
        for name, choice in layer_choices(space).items()
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_path_gives_the_gradient_of_all_gates(space: SearchSpace, seed: int) -> None:
    """dL/dg of the sum over all options with one-hot g, which holds every option in memory."""
    x, y = batch(space)
    generator = torch.Generator().manual_seed(seed)
    path = {n: int(torch.randint(len(c.options), (), generator=generator)) for n, c in layer_choices(space).items()}
    state = copy.deepcopy(space.state_dict())
    options = {name: range(len(choice.options)) for name, choice in layer_choices(space).items()}
    loss, b = gate_gradients(space, lambda _: F.cross_entropy(space(x, with_open_edges(space, path)), y), path, options)
    assert all(parameter.grad is None for parameter in space.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in space.state_dict().items())

    gates = one_hot_mixtures(space, path)
    full = F.cross_entropy(space(x, with_open_edges(space, gates)), y)
    expected = torch.autograd.grad(full, [gate.weights for gate in gates.values()], materialize_grads=True)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, full.detach())
    for name, slope in zip(gates, expected, strict=True):
        torch.testing.assert_close(b[name], slope, msg=name, rtol=1e-8, atol=1e-12)
    p = torch.rand(len(slope), dtype=torch.float64).softmax(0)
    assert float(alpha_gradient(p, slope).sum()) == pytest.approx(0, abs=1e-12)


def test_a_finite_difference_of_each_gate() -> None:
    """(L(g + h e_j) - L(g - h e_j)) / 2h with h = 1e-6, in double precision: larger steps cross kinks of ReLUs."""
    torch.manual_seed(0)
    space = SPACES["nasbench201"]().double().train()
    x, y = batch(space)
    path = dict.fromkeys(space.choices(), 3)
    _, b = gate_gradients(space, lambda _: F.cross_entropy(space(x, path), y), path, {"edge_2_0": range(5)})

    def loss(j: int, h: float) -> float:
        weights = torch.eye(5, dtype=torch.float64)[3] + h * torch.eye(5, dtype=torch.float64)[j]
        with torch.no_grad():
            return float(F.cross_entropy(space(x, {**path, "edge_2_0": Mixture(weights, (0, 1, 2, 3, 4))}), y))

    differences = [(loss(j, 1e-6) - loss(j, -1e-6)) / 2e-6 for j in range(5)]
    assert b["edge_2_0"].tolist() == pytest.approx(differences, rel=1e-5, abs=1e-8)


def test_frozen_weights_do_not_hide_the_gates(space: SearchSpace) -> None:
    """Nothing in the forward pass requires a gradient then."""
    x, y = batch(space)
    path = {name: len(choice.options) - 1 for name, choice in layer_choices(space).items()}
    options = {name: range(len(choice.options)) for name, choice in layer_choices(space).items()}

    def gradients() -> dict[str, Tensor]:
        gates = with_open_edges(space, path)
        return gate_gradients(space, lambda _: F.cross_entropy(space(x, gates), y), path, options)[1]

    free = gradients()
    space.requires_grad_(False)
    for name, b in gradients().items():
        torch.testing.assert_close(b, free[name], msg=name)


@pytest.mark.parametrize(
    ("p", "gradient"),
    [([1 / 3] * 3, [-2 / 3, -1 / 3, 1.0]), ([0.125, 0.25, 0.625], [-0.421875, -0.59375, 1.015625])],
)
def test_gradient_of_alpha(p: list[float], gradient: list[float]) -> None:
    """p_i (b_i - sum_j p_j b_j) with b = (1, 2, 6)."""
    result = alpha_gradient(torch.tensor(p), torch.tensor([1.0, 2.0, 6.0]))
    assert result.tolist() == pytest.approx(gradient, abs=1e-6)


class ThreeBlocks(SearchSpace):
    """3 blocks of 6 inverted bottlenecks each on 16 x 16 x 16."""

    def __init__(self) -> None:
        super().__init__()
        self.space = MobileNet((3, 16, 16), 10, widths=(16,) * 9, cells=(3, 1, 1, 1, 1, 1), reductions=0)
        self.input_shape = (16, 16, 16)
        self.blocks = nn.ModuleList(block.choice for block in list(self.space.blocks)[:3])
        del self.space

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        for block in self.blocks:
            y = block(x, gates)
            x = x if y is None else x + y
        return x.mean((2, 3))


def test_memory_is_that_of_one_path() -> None:
    """Bytes that the graph keeps, at their peak: 14.95 MB for a path of k5e6, five times that for the mixture."""
    torch.manual_seed(0)
    space = ThreeBlocks().train()
    x = torch.randn(8, 16, 16, 16)
    path = dict.fromkeys(space.choices(), 3)
    options = {name: range(len(choice.options)) for name, choice in space.choices().items()}

    def loss(gates: Gates) -> Tensor:
        return space(x, gates).square().mean()

    mixtures = {name: Mixture(torch.full((7,), 1 / 7, requires_grad=True), tuple(range(7))) for name in path}
    single = peak(lambda: loss(path).backward())
    assert single == pytest.approx(14.95e6, rel=0.02)
    assert peak(lambda: gate_gradients(space, lambda _: loss(path), path, options)) <= 1.05 * single
    pair = dict.fromkeys(path, (3, 5))
    assert peak(lambda: gate_gradients(space, lambda _: loss(path), path, pair)) <= 1.05 * single
    assert peak(lambda: loss(mixtures).backward()) > 4 * single


def peak(work: Callable[[], object]) -> int:
    """The most bytes that tensors saved for a backward pass, and not parameters, hold at one time."""
    live: dict[int, int] = {}
    sizes: dict[int, int] = {}
    most = 0

    class Saved:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal most
            self.tensor = tensor.detach()
            self.storage = tensor.untyped_storage().data_ptr()
            if not isinstance(tensor, nn.Parameter):
                live[self.storage] = live.get(self.storage, 0) + 1
                sizes[self.storage] = tensor.untyped_storage().nbytes()
                most = max(most, sum(sizes[s] for s, count in live.items() if count))

        def __del__(self) -> None:
            if self.storage in live:
                live[self.storage] -= 1

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        work()
    return most
