"""Distances between the gradients that a choice's options give to the shared weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from espalier.nas.architecture import Architecture
from espalier.nas.choices import LayerChoice
from espalier.nas.gates import Gates
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.nasbench201 import EDGES, NasBench201, edge_name
from espalier.nas.task import Batch, Classification
from espalier.nas.training import Diverged
from espalier.supernets.darts import FixedAlpha
from espalier.supernets.fewshot.partition import best_cut
from espalier.supernets.fewshot.similarity import GradientDistances, Loss, distances, gram, shared_parameters
from espalier.supernets.spos import SinglePathOneShot
from espalier.supernets.strategy import Strategy
from toy_space import ToySpace
from user_errors import user_error

vectors = st.lists(st.floats(-3, 3, allow_subnormal=False), min_size=4, max_size=4).map(
    lambda values: torch.tensor(values, dtype=torch.float64).round(decimals=3)
)


def endless(space: SearchSpace, batch: int = 8) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(3)
    while True:
        x = torch.randn(batch, *space.input_shape, generator=generator)
        yield x, torch.randint(space.num_classes, (batch,), generator=generator)


def cross_entropy(space: SearchSpace) -> Loss:
    task = Classification(space.num_classes)
    return lambda batch, gates: task.loss(space(batch[0], gates), batch[1])


def measurement(strategy: Strategy, *, seed: int = 0) -> GradientDistances:
    space = strategy.space
    return GradientDistances(space, strategy, cross_entropy(space), endless(space), torch.Generator().manual_seed(seed))


def nasbench201() -> NasBench201:
    torch.manual_seed(0)
    return NasBench201((1, 8, 8), 10, channels=4, cells=1)


@settings(deadline=None)
@given(vectors, vectors, st.floats(0.01, 100))
def test_distances_are_one_minus_cosine(g: Tensor, h: Tensor, c: float) -> None:
    """D(g, cg) = 0, D(g, -g) = 2, D(g, 0) = 1; symmetric, zero on the diagonal."""
    zero = torch.zeros(4, dtype=torch.float64)
    d = distances([{"w": row} for row in (g, c * g, -g, h, zero)])
    assert d == pytest.approx(d.T, abs=1e-12)
    assert (d > -1e-12).all() and (d < 2 + 1e-12).all()
    assert d[4].tolist() == [1] * 5
    if g.any():
        assert d[0, :3] == pytest.approx([0, 0, 2], abs=1e-12)
        assert d[0, 0] == 0
    if g.any() and h.any():
        assert d[0, 3] == pytest.approx(1 - float(torch.cosine_similarity(g, h, dim=0)), abs=1e-9)


def test_a_parameter_without_gradient_counts_as_zero_whatever_its_position() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([[3.0]])
    d = distances([{"a": a, "b": b}, {"b": b}, {}])
    assert d[0, 1] == pytest.approx(1 - 9 / (14**0.5 * 3))
    assert d[2].tolist() == [1, 1, 1]


def test_gradients_that_are_not_finite_are_refused() -> None:
    with pytest.raises(Diverged, match="not finite"):
        distances([{"w": torch.tensor([1.0, float("nan")])}, {"w": torch.ones(2)}])


def pairwise(rows: list[Mapping[str, Tensor]]) -> NDArray[np.float64]:
    """The distances as a loop over pairs of whole gradients."""
    like = {name: g for row in rows for name, g in row.items()}
    whole = [torch.cat([row.get(n, torch.zeros_like(g)).flatten() for n, g in like.items()]).double() for row in rows]
    return np.array([[1 - float(torch.dot(g, h) / (g.norm() * h.norm())) for h in whole] for g in whole])


def test_one_product_gives_what_a_loop_over_pairs_gives() -> None:
    space = nasbench201()
    measure = measurement(FixedAlpha(space))
    gates = measure.strategy.weight_gates(measure.generator)
    rows = list(measure.gradients(next(measure.batches), gates, "edge_2_1", seed=0))
    assert distances(rows) == pytest.approx(pairwise(rows), abs=1e-6)
    assert gram(rows[::-1]) == pytest.approx(gram(rows)[::-1, ::-1], rel=1e-12)


class Multiples(SearchSpace):
    """y = c_o (w . x): the options' gradients are the same vector, c_o times."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.input_shape, self.num_classes = (1, 1, 3), 1
        self.w = nn.Parameter(torch.tensor([1.0, -2.0, 1.0]))
        self.op = LayerChoice("op", {f"o{i}": Times(c) for i, c in enumerate(factors)})

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        y = self.op(x.flatten(1) @ self.w, gates)
        assert y is not None
        return y


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def test_opposite_multiples_are_two_apart() -> None:
    """Loss (y - t)^2 / 2 with w . x = 0 and t = 1 gives g_o = -c_o x; c = 0 gives no gradient and is flagged."""
    space = Multiples(1, 2, -1, -3, 0)
    x = torch.tensor([1.0, 1.0, 1.0]).reshape(1, 1, 1, 3)

    def half_square(batch: Batch, gates: Gates) -> Tensor:
        return (space(batch[0], gates) - batch[1]).square().sum() / 2

    measure = GradientDistances(
        space, SinglePathOneShot(space), half_square, iter([(x, torch.ones(1))]), torch.Generator()
    )
    d = measure(["op"])["op"]
    assert d[:4, :4] == pytest.approx(np.array([[0, 0, 2, 2], [0, 0, 2, 2], [2, 2, 0, 0], [2, 2, 0, 0]]), abs=1e-12)
    assert d[4].tolist() == [1] * 5
    assert d.diagonal().tolist() == [0, 0, 0, 0, 1]
    assert best_cut(d[:4, :4], 2) == (((0, 1), (2, 3)), -1)
    assert measure.sample_passes == 5


def test_the_scored_choice_s_own_weights_do_not_count() -> None:
    space = nasbench201()
    for edge in EDGES:
        name = edge_name(*edge)
        names = set(shared_parameters(space, name))
        own = {key for key, _ in space.named_parameters() if f".edges.{name}." in key}
        assert own and names == {key for key, _ in space.named_parameters()} - own
    toy = ToySpace()
    assert set(shared_parameters(toy, "depth")) == set(dict(toy.named_parameters()))
    toy.head.bias.requires_grad_(False)
    assert "head.bias" not in shared_parameters(toy, "layer")
    measure = measurement(FixedAlpha(space))
    gates = measure.strategy.weight_gates(measure.generator)
    for row in measure.gradients(next(measure.batches), gates, "edge_2_1", seed=0):
        assert row.keys() <= set(shared_parameters(space, "edge_2_1"))


@pytest.mark.parametrize("kind", [FixedAlpha, SinglePathOneShot])
def test_it_is_reproducible_in_any_order_and_changes_nothing(kind: type[Strategy]) -> None:
    space = nasbench201()
    space.eval()
    before = {name: tensor.clone() for name, tensor in space.state_dict().items()}
    names = ["edge_1_0", "edge_3_1", "edge_3_2"]
    strategy = kind(space)
    rng = torch.get_rng_state()
    there = measurement(strategy)(names)
    back = measurement(strategy)(names[::-1])
    assert all(np.array_equal(there[name], back[name]) for name in names)
    assert torch.equal(torch.get_rng_state(), rng)
    assert not space.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in space.state_dict().items())
    assert all(parameter.grad is None for parameter in space.parameters())


def test_only_open_options_are_scored_each_alike_in_any_company() -> None:
    space = nasbench201()
    strategy = FixedAlpha(space)
    whole = measurement(strategy)
    expected = whole(["edge_2_0"])["edge_2_0"][np.ix_((0, 2, 4), (0, 2, 4))]
    strategy.region = Region.whole(space).restrict("edge_2_0", (0, 2, 4))
    part = measurement(strategy)
    assert part(["edge_2_0"])["edge_2_0"] == pytest.approx(expected, abs=1e-12)
    assert (whole.sample_passes, part.sample_passes) == (5 * 8, 3 * 8)


def test_every_kind_of_choice_can_be_scored() -> None:
    d = measurement(SinglePathOneShot(ToySpace()))(["layer", "inputs", "depth"])
    assert {name: of.shape for name, of in d.items()} == {"layer": (3, 3), "inputs": (3, 3), "depth": (2, 2)}


class Deep(ToySpace):
    """`none` must not be followed by two blocks; what breaks the rule cannot be run."""

    def contains(self, architecture: Architecture) -> bool:
        return (architecture["layer"], architecture["depth"]) != ("none", 2)

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        assert self.contains(self.architecture({name: g for name, g in gates.items() if isinstance(g, int)}))
        return super().forward(x, gates)


def test_gates_are_drawn_until_every_option_goes_with_them() -> None:
    """`layer` is compared at depth 1 alone, `depth` without `none`, and `inputs` on any path."""
    space = Deep()
    for seed in range(8):
        measure = measurement(SinglePathOneShot(space), seed=seed)
        there = measure(["layer", "inputs", "depth"])
        back = measurement(SinglePathOneShot(space), seed=seed)(["depth", "inputs", "layer"])
        assert all(np.array_equal(there[name], back[name]) for name in there)


def test_options_that_nothing_goes_with_cannot_be_compared() -> None:
    class Tied(ToySpace):
        def contains(self, architecture: Architecture) -> bool:
            return (architecture["layer"] == "none") == (architecture["depth"] == 2)

    measure = measurement(SinglePathOneShot(Tied()))
    with user_error("supernet.few_shot.split", "infeasible", says="'depth'"):
        measure(["inputs", "depth"])


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Restless(SearchSpace):
    """Dropout and noise before, inside and after a choice that offers everything twice."""

    def __init__(self) -> None:
        super().__init__()
        self.input_shape, self.num_classes = (1, 4, 4), 3
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Dropout(0.5))
        noise = Noise()  # one layer, so that both its options draw the same
        self.op = LayerChoice("op", {"a": nn.Identity(), "b": noise, "c": noise, "d": nn.Identity()})
        self.head = nn.Sequential(Noise(), nn.Dropout(0.2), nn.Linear(16, 3))

    def forward(self, x: Tensor, gates: Gates) -> Tensor:
        y = self.op(self.stem(x), gates)
        assert y is not None
        return self.head(y)


def test_the_same_operation_has_the_same_noise() -> None:
    """D(o, o) = 0 for an operation that is offered twice, dropout and noise notwithstanding."""
    torch.manual_seed(0)
    measure = measurement(SinglePathOneShot(Restless()))
    for _ in range(3):
        d = measure(["op"])["op"]
        assert d[0, 3] == pytest.approx(0, abs=1e-12)
        assert d[1, 2] == pytest.approx(0, abs=1e-12)
        assert d[0, 1] > 1e-3
