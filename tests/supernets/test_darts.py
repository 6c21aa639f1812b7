"""DARTS against the toy problem of its paper and against hand-made gradients."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from espalier.nas.choices import InputChoice, LayerChoice
from espalier.nas.gates import Gate, Mixture
from espalier.nas.region import Region
from espalier.nas.spaces.darts import Darts
from espalier.nas.task import Classification
from espalier.supernets.alphas import Alphas
from espalier.supernets.darts import DARTS, FixedAlpha, unrolled_gradient
from espalier.supernets.drnas import DrNAS, dirichlet
from espalier.supernets.gdas import GDAS, largest, straight_through
from espalier.supernets.gradient_strategy import softmax
from espalier.supernets.selection.argmax import argmax
from espalier.supernets.strategy import Step
from toy_space import ToyCell, ToySpace
from user_errors import user_error

LN2, LN5 = math.log(2), math.log(5)


class Scalar:
    """L_train = (w - a)^power and L_val = a w - 2 a + 1, section 2.3 of the DARTS paper (power 2)."""

    def __init__(self, a: float, w: float, power: int = 2) -> None:
        self.a = torch.tensor(a, dtype=torch.float64, requires_grad=True)
        self.w = {"w": torch.tensor(w, dtype=torch.float64)}
        self.power = power

    def train(self, w: Mapping[str, Tensor]) -> Tensor:
        return (w["w"] - self.a) ** self.power

    def validation(self, w: Mapping[str, Tensor]) -> Tensor:
        return self.a * w["w"] - 2 * self.a + 1

    def gradient(self, xi: float, **options: float) -> float:
        named = {key: {"w": value} for key, value in options.items() if key == "decay"}
        buffers = {"w": torch.tensor(options["v"])} if "v" in options else None
        (g,) = unrolled_gradient(
            self.train,
            self.validation,
            [self.a],
            self.w,
            xi=xi,
            momentum=options.get("momentum", 0.0),
            buffers=buffers,
            **named,
        )
        return float(g)


@pytest.mark.parametrize(("xi", "expected"), [(0.0, -4.0), (0.01, -3.88), (0.5, 2.0), (0.7, 4.4)])
def test_the_second_order_gradient_of_the_papers_toy(xi: float, expected: float) -> None:
    """g = (w' - 2) + 2 xi a at (a, w) = (2, -2)."""
    assert Scalar(2, -2).gradient(xi) == pytest.approx(expected, abs=1e-6)


def test_the_look_ahead_has_the_optimisers_momentum_and_decay() -> None:
    """w' = w - xi (mu v + dL/dw + lambda w) = -1.27 with mu = .9, v = 1, lambda = .1, xi = .1."""
    assert Scalar(2, -2).gradient(0.1, momentum=0.9, v=1.0, decay=0.1) == pytest.approx(-2.87, abs=1e-6)


def test_the_finite_difference_is_divided_by_two_epsilon() -> None:
    """A quartic training loss: h = -216.0008 against the exact -216; divided by 2 and multiplied by epsilon, .0054."""
    assert Scalar(2, -1, power=4).gradient(0.001) == pytest.approx(-2.6759992, abs=1e-7)


@pytest.mark.parametrize(("xi", "expected"), [(0.0, 2.0), (0.25, 4 / 3), (0.5, 1.0)])
def test_alternating_steps_reach_the_fixed_point(xi: float, expected: float) -> None:
    """a = w = 2 / (1 + 2 xi)."""
    toy = Scalar(2, -2)
    for _ in range(400):
        step = toy.gradient(xi)
        toy.a.data -= 0.1 * step
        toy.w["w"] = toy.w["w"] - 0.1 * 2 * (toy.w["w"] - toy.a.detach())
    assert float(toy.a.detach()) == pytest.approx(expected, abs=1e-4)
    assert float(toy.w["w"]) == pytest.approx(expected, abs=1e-4)


def alphas_of(space: ToyCell, *rows: tuple[float, ...]) -> Alphas:
    alphas = Alphas(space, std=0)
    for alpha, row in zip(alphas.parameters(), rows, strict=True):
        alpha.data = torch.tensor(row, dtype=torch.float32)
    return alphas


def test_the_gradient_of_a_softmax_mixture() -> None:
    """dL/dalpha = p (c - p.c) of constants c = (1, 2, 6) under alpha = (0, ln 2, ln 5)."""
    alphas = alphas_of(ToyCell(), (0, LN2, LN5), (0, 0, 0), (0, 0, 0))
    weights = alphas.weights(Region.whole(ToyCell()), "edge_0", softmax)
    (g,) = torch.autograd.grad((weights * torch.tensor([1.0, 2.0, 6.0])).sum(), alphas.values["edge_0"])
    assert g.tolist() == pytest.approx([-0.421875, -0.59375, 1.015625])


def test_softmax_inside_a_group_leaves_nothing_outside() -> None:
    """alpha = (0, ln 2, ln 5), open (0, 2): (1/6, 0, 5/6), and no gradient for the closed option."""
    space = ToyCell()
    alphas = alphas_of(space, (0, LN2, LN5), (0, 0, 0), (0, 0, 0))
    region = Region.whole(space).restrict("edge_0", (0, 2))
    weights = alphas.weights(region, "edge_0", softmax)
    assert weights.tolist() == pytest.approx([1 / 6, 0, 5 / 6])
    (g,) = torch.autograd.grad((weights * torch.tensor([1.0, 2.0, 6.0])).sum(), alphas.values["edge_0"])
    assert g[1] == 0
    assert g[0] != 0


def test_a_choice_of_inputs_in_training_counts_every_input_once() -> None:
    choice = InputChoice("node", 5, chosen=2, edges=[f"e{i}" for i in range(5)])
    inputs = [torch.tensor([10.0**i]) for i in range(5)]
    allowed = tuple(range(len(choice.options)))
    assert choice(inputs, {"node": choice.open(allowed)}).item() == 11111
    assert choice(inputs, {"node": choice.open(choice.without(allowed, 3))}).item() == 10111


def test_sigmoid_gates_do_not_compete() -> None:
    space = ToyCell()
    strategy = DARTS(space, gate="sigmoid")
    for alpha in strategy.alphas.parameters():
        alpha.data.zero_()
    gate = strategy.mean_gates()["edge_0"]
    assert isinstance(gate, Mixture)
    assert gate.weights.tolist() == [0.5, 0.5, 0.5]


def test_dirichlet_draws_have_the_right_mean_and_a_gradient() -> None:
    beta = torch.tensor([0.5, 1.0, 2.5], requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack(list(dirichlet([beta] * 4000, generator)))
    assert draws.sum(dim=1).tolist() == pytest.approx([1.0] * 4000)
    assert draws.mean(dim=0).tolist() == pytest.approx([0.125, 0.25, 0.625], abs=0.01)
    (g,) = torch.autograd.grad(draws[:, 0].mean(), beta)
    # d E[theta_0] / d beta = ((beta_1 + beta_2) / S^2, -beta_0 / S^2, -beta_0 / S^2) with S = 4
    assert g.tolist() == pytest.approx([3.5 / 16, -0.5 / 16, -0.5 / 16], abs=0.01)


def test_a_drawn_option_counts_fully_and_passes_the_relaxed_gradient() -> None:
    h = torch.tensor([0.2, 0.5, 0.3], requires_grad=True)
    assert largest({"edge": h, "other": torch.ones(2) / 2}) == {"edge": 1, "other": 0}
    weights = straight_through(h, 1)
    assert weights.tolist() == [0.0, 1.0, 0.0]
    (g,) = torch.autograd.grad(weights[1] * 7, h)
    assert g.tolist() == [0.0, 7.0, 0.0]


def test_gdas_draws_each_option_with_its_probability() -> None:
    """Gumbel-max draws from softmax(alpha): chi-square over 3,000 draws, 2 degrees of freedom, 99.9 % point."""
    space = ToyCell()
    strategy = GDAS(space)
    strategy.alphas.values["edge_0"].data = torch.tensor([0.0, LN2, LN5])
    generator = torch.Generator().manual_seed(0)
    draws = torch.tensor([strategy.weight_gates(generator)["edge_0"] for _ in range(3000)])
    expected = 3000 * torch.tensor([0.125, 0.25, 0.625])
    assert float(((torch.bincount(draws, minlength=3) - expected) ** 2 / expected).sum()) < 13.8


class Counted(TorchDispatchMode):
    """Counts the calls of torch's operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("strategy_class", "draw"), [(GDAS, "exponential_"), (DrNAS, "_standard_gamma")])
def test_all_choices_are_drawn_at_once(strategy_class: type[GDAS] | type[DrNAS], draw: str) -> None:
    """No tensor is asked for a number, a synchronisation each time, and one operator draws for all choices."""
    strategy = strategy_class(ToyCell())
    strategy.region = strategy.region.restrict("edge_0", (0, 2))
    generator = torch.Generator().manual_seed(0)
    with Counted() as counted:
        strategy.weight_gates(generator)
    assert counted.calls[draw] == 1
    assert counted.calls["_local_scalar_dense"] == 0


@pytest.mark.parametrize("strategy_class", [GDAS, DrNAS])
def test_nothing_is_drawn_where_all_is_decided(strategy_class: type[GDAS] | type[DrNAS]) -> None:
    space = ToyCell()
    strategy = strategy_class(space)
    for name in strategy.alphas.values:
        strategy.region = strategy.region.decide(name, 1)
    gates = strategy.weight_gates(torch.Generator())
    assert [gates[name] for name in strategy.alphas.values] == [1, 1, 1]


def step_of(space: ToyCell) -> Step:
    x, y = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 10
    return Step(
        supernet=space.train(),
        task=Classification(10),
        optimizer=torch.optim.SGD(space.parameters(), lr=0.1),
        train=(x, y),
        validation=lambda: (x, y),
        generator=torch.Generator().manual_seed(0),
        epoch=0,
        epochs=1,
        index=0,
        steps=1,
    )


@pytest.mark.parametrize("order", [1, 2])
def test_decided_choices_get_no_gradient(order: int) -> None:
    torch.manual_seed(0)
    space = ToyCell()
    strategy = DARTS(space, order=order)  # type: ignore[arg-type]
    strategy.region = strategy.region.decide("edge_1", 2)
    g = dict(zip(strategy.alphas.values, strategy.gradient(step_of(space)), strict=True))
    assert g["edge_1"] is None or not g["edge_1"].any()
    for name in ("edge_0", "edge_2"):
        assert g[name] is not None
        assert g[name].any()  # type: ignore[union-attr]


def test_decided_alphas_stay_where_they_are() -> None:
    """Neither Adam's decay nor its momentum moves them, and once no alpha is open no validation image is used."""
    torch.manual_seed(0)
    space = ToyCell()
    strategy = DARTS(space, alpha_weight_decay=0.1)
    used: list[int] = []
    step = step_of(space)
    validation = step.validation
    step = dataclasses.replace(step, validation=lambda: used.append(1) or validation())
    strategy.before_step(step)
    strategy.region = strategy.region.decide("edge_1", 2)
    before = strategy.alphas.state_dict()
    strategy.before_step(step)
    after = strategy.alphas.state_dict()
    assert [torch.equal(after[name], before[name]) for name in after] == [False, True, False]
    strategy.region = strategy.region.decide("edge_0", 2).decide("edge_2", 2)
    assert strategy.region.undecided == ("node",)
    strategy.before_step(step)
    assert all(torch.equal(alpha, after[name]) for name, alpha in strategy.alphas.state_dict().items())
    assert len(used) == 2


def test_all_decided_the_supernet_is_the_network() -> None:
    torch.manual_seed(0)
    space = ToyCell().eval()
    strategy = DARTS(space)
    architecture = space.sample(torch.Generator().manual_seed(1))
    for name, option in space.gates(architecture).items():
        strategy.region = strategy.region.decide(name, option)
    x = torch.randn(4, 1, 8, 8)
    network = space.build(architecture, weights="inherited")
    torch.testing.assert_close(space(x, strategy.mean_gates()), network(x), rtol=1e-4, atol=1e-5)


def test_second_order_agrees_with_the_exact_derivative() -> None:
    """Against double backward through the step of SGD, on a supernet with batch norms."""
    torch.manual_seed(0)
    space = ToyCell().double()
    strategy = DARTS(space, order=2)
    for alpha in strategy.alphas.parameters():
        alpha.data = alpha.data.double()
    step = step_of(space)
    step = Step(**{**step.__dict__, "train": (step.train[0].double(), step.train[1])})
    step = Step(**{**step.__dict__, "validation": lambda: (step.train[0].flip(0), step.train[1])})
    ours = strategy.gradient(step)
    w = {name: p.detach().requires_grad_() for name, p in space.named_parameters()}
    gates: Mapping[str, Gate] = strategy.alphas.gates(strategy.region, softmax)
    slopes = torch.autograd.grad(step.loss(step.train, gates, w), list(w.values()), create_graph=True)
    ahead = {name: p - 0.1 * slope for (name, p), slope in zip(w.items(), slopes, strict=True)}
    exact = torch.autograd.grad(step.loss(step.validation(), gates, ahead), strategy.alphas.parameters())
    for a, b in zip(ours, exact, strict=True):
        assert a is not None
        assert torch.allclose(a, b, rtol=2e-3, atol=1e-6)


def test_second_order_needs_sgd() -> None:
    space = ToyCell()
    adam = torch.optim.Adam(space.parameters())
    with user_error("supernet.optimizer", "conflict", says="momentum, sgd"):
        DARTS(space, order=2).check_optimizer(adam)


@pytest.mark.parametrize("strategy_class", [DARTS, DrNAS, GDAS])
def test_alphas_learn_and_fixed_ones_do_not(strategy_class: type[DARTS]) -> None:
    torch.manual_seed(0)
    space = ToyCell()
    learning, fixed = strategy_class(space), FixedAlpha(space)
    for strategy, changes in ((learning, True), (fixed, False)):
        before = [alpha.detach().clone() for alpha in strategy.alphas.parameters()]
        strategy.before_step(step_of(space))
        after = strategy.alphas.parameters()
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) == changes


def test_an_alpha_that_is_not_finite_is_named() -> None:
    strategy = DARTS(ToyCell())
    strategy.alphas.values["edge_1"].data[2] = math.nan
    with user_error("supernet.strategy.edge_1", "failed", says="nan"):
        strategy.end_epoch(0, 1)


def test_magnitude_never_picks_none_on_an_edge_that_can_be_dropped() -> None:
    """As in the paper: none is the largest everywhere, the two strongest edges stay, ties go to the lower index."""
    space = ToyCell()
    preferences = {
        "edge_0": torch.tensor([0.8, 0.1, 0.1]),
        "edge_1": torch.tensor([0.6, 0.1, 0.3]),
        "edge_2": torch.tensor([0.9, 0.1, 0.0]),
    }
    chosen = argmax(space, preferences, Region.whole(space))
    assert dict(chosen) == {"edge_0": "skip", "edge_1": "conv", "edge_2": "skip", "node": (0, 1)}


def test_no_edge_of_darts_is_none_where_none_is_largest_everywhere() -> None:
    """S0, 14 x 8: each node keeps the two edges with the strongest operation other than none, node 2 both of its."""
    space = Darts((1, 8, 8), 10, variant="S0", channels=2, cells=3)
    # operation and strength of edges 2_0, 2_1, 3_0, ...; none has 9 on each
    strongest = (
        "skip_connect 1, dil_conv_5x5 2, max_pool_3x3 3, avg_pool_3x3 1, sep_conv_3x3 2, "
        "sep_conv_5x5 1, dil_conv_3x3 4, skip_connect 3, max_pool_3x3 2, "
        "avg_pool_3x3 5, sep_conv_3x3 1, sep_conv_5x5 2, dil_conv_3x3 3, dil_conv_5x5 6"
    )
    alpha = torch.zeros(14, 8)
    alpha[:, 0] = 9
    names = [name for name in space.choices() if name.startswith("normal_edge")]
    for row, name, edge in zip(alpha, names, strongest.split(", "), strict=True):
        operation, strength = edge.split()
        row[space.choices()[name].options.index(operation)] = float(strength)
    both = [*names, *(name.replace("normal", "reduce") for name in names)]
    preferences = dict(zip(both, torch.cat([alpha, alpha]).softmax(dim=1), strict=True))
    cell = (
        "[('skip_connect', 0), ('dil_conv_5x5', 1), ('max_pool_3x3', 0), ('sep_conv_3x3', 2), "
        "('dil_conv_3x3', 1), ('skip_connect', 2), ('avg_pool_3x3', 0), ('dil_conv_5x5', 4)]"
    )
    chosen = argmax(space, preferences, Region.whole(space))
    published = f"Genotype(normal={cell}, normal_concat=range(2, 6), reduce={cell}, reduce_concat=range(2, 6))"
    kept = space.parse(published)
    assert space.isomorphism_class(chosen) == space.isomorphism_class(kept)
    assert "none" not in chosen.values()


def test_edges_are_compared_by_the_gates_that_are_trained() -> None:
    """Sigmoids (.05, .88, .88): both its operations beat any of (.05, .50, .05), though softmax divides them."""
    strategy = DARTS(ToyCell(), gate="sigmoid")
    for name, gates in (("edge_0", (0.05, 0.88, 0.88)), ("edge_1", (0.05, 0.50, 0.05)), ("edge_2", (0.05, 0.60, 0.05))):
        strategy.alphas.values[name].data = torch.tensor(gates).logit()
    assert strategy.preferences()["edge_1"].max() > strategy.preferences()["edge_0"].max()
    assert dict(strategy.preferred()) == {"edge_0": "skip", "edge_1": "skip", "edge_2": "skip", "node": (0, 2)}


def test_magnitude_may_pick_none_where_nothing_else_drops_an_edge() -> None:
    space = ToySpace()
    preferences = {name: torch.linspace(0, 1, len(choice.options)) for name, choice in space.choices().items()}
    assert isinstance(space.choices()["layer"], LayerChoice)
    assert argmax(space, preferences, Region.whole(space))["layer"] == "none"
