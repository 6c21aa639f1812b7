"""What strategies do on entangled weights (T11 to T14, T16, T18 and T20 of weight entanglement)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from espalier.nas.choices import ElasticChoice
from espalier.nas.elastic.conv import ElasticConv2d
from espalier.nas.elastic.dims import Dim
from espalier.nas.elastic.layer import Mode
from espalier.nas.elastic.linear import ElasticLinear
from espalier.nas.gates import Gates, Mixture, mixture
from espalier.nas.task import Classification
from espalier.nas.training import TrainSettings
from espalier.supernets.darts import DARTS
from espalier.supernets.drnas import DrNAS, concentration, dirichlet, divergence
from espalier.supernets.effective_decay import EffectiveDecay
from espalier.supernets.gate_gradients import gate_gradients
from espalier.supernets.gdas import GDAS, straight_through
from espalier.supernets.proxyless import ProxylessNAS
from espalier.supernets.sandwich import Sandwich
from espalier.supernets.selection.constrained import likeliest_within
from espalier.supernets.sparsemax import sparsemax
from espalier.supernets.strategy import Step, Strategy
from espalier.supernets.trainer import SupernetTraining
from toy_elastic import ToyElastic
from toy_space import ToySpace
from user_errors import user_error

TASK = Classification(10)


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 1, 8, 8, generator=generator), torch.randint(10, (16,), generator=generator)


def step_of(space: ToyElastic, *, seed: int = 0, index: int = 4) -> Step:
    return Step(
        supernet=space.train(),
        task=TASK,
        optimizer=torch.optim.SGD(space.parameters(), lr=0.1),
        train=batch(seed),
        validation=lambda: batch(seed + 100),
        generator=torch.Generator().manual_seed(seed),
        epoch=1,
        epochs=5,
        index=index,
        steps=5,
    )


@pytest.fixture
def space() -> ToyElastic:
    torch.manual_seed(0)
    return ToyElastic()


def test_the_mean_of_a_dirichlet_draw_and_its_slope_in_alpha() -> None:
    """T11: alpha = 0, n = 3: E[theta] = 1/3; dE[theta_0]/dalpha = (2/9, -1/9, -1/9); beta = elu(alpha) + 1."""
    alpha = torch.zeros(3, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack(list(dirichlet([concentration(alpha)] * 20_000, generator)))
    assert draws.mean(0).tolist() == pytest.approx([1 / 3] * 3, abs=0.005)
    (slope,) = torch.autograd.grad(draws[:, 0].mean(), alpha)
    assert slope.tolist() == pytest.approx([2 / 9, -1 / 9, -1 / 9], abs=0.005)
    assert concentration(torch.tensor([-5.0, 2.0])).tolist() == pytest.approx([0.00674, 3.0], abs=1e-5)


def test_the_divergence_from_the_uniform_distribution() -> None:
    """T12: 0 at alpha = 0, more elsewhere, with a finite slope."""
    assert float(divergence(concentration(torch.zeros(3)))) == pytest.approx(0, abs=1e-6)
    for alpha in ([0.5, 0.0, 0.0], [-1.0, -1.0, -1.0], [2.0, -2.0, 0.0]):
        row = torch.tensor(alpha, requires_grad=True)
        value = divergence(concentration(row))
        assert float(value.detach()) > 0.01
        (slope,) = torch.autograd.grad(value, row)
        assert bool(slope.isfinite().all())
        assert float(slope.abs().max()) > 0


def test_kl_pulls_alpha_to_its_anchor(space: ToyElastic) -> None:
    """The gradients with the divergence and without it differ by its own."""

    def gradient(weight: float) -> list[Tensor]:
        torch.manual_seed(1)
        strategy = DrNAS(space, anchor="kl", alpha_weight_decay=weight)
        with torch.no_grad():
            strategy.alphas.values["width"].copy_(torch.tensor([0.5, -0.5, 1.0]))
        found = strategy.gradient(step_of(space))
        return [torch.zeros(3) if g is None else g for g in found]

    row = torch.tensor([0.5, -0.5, 1.0], requires_grad=True)
    (own,) = torch.autograd.grad(divergence(concentration(row)), row)
    difference = gradient(0.3)[0] - gradient(0.0)[0]
    assert difference.tolist() == pytest.approx((0.3 * own).tolist(), rel=1e-3, abs=1e-5)


def test_the_straight_through_gradient_reaches_every_slice() -> None:
    """T13: one-hot forward; backward the soft gradient, counterfactual options included: values v = (1, 2, 3)."""
    logits = torch.tensor([0.3, 0.1, -0.2], requires_grad=True)
    v = torch.tensor([1.0, 2.0, 3.0])
    weights = straight_through(logits.softmax(0), 0)
    assert weights.tolist() == [1, 0, 0]
    (hard,) = torch.autograd.grad(weights @ v, logits)
    (soft,) = torch.autograd.grad(logits.softmax(0) @ v, logits)
    assert hard.tolist() == pytest.approx(soft.tolist())
    selected_only = straight_through(logits.softmax(0), 0)[0] * v[0]
    (alone,) = torch.autograd.grad(selected_only, logits)
    assert float(alone[0]) > 0 > float(hard[0])  # the sign that is lost with the others


def test_gdas_runs_a_path_and_learns_from_all_slices(space: ToyElastic) -> None:
    strategy = GDAS(space)
    assert all(isinstance(gate, int) for gate in strategy.weight_gates(torch.Generator().manual_seed(0)).values())
    seen: list[Gates] = []
    forward = space.forward
    space.forward = lambda x, gates: (seen.append(gates), forward(x, gates))[1]  # type: ignore[method-assign,func-returns-value]
    gradients = strategy.gradient(step_of(space))
    for name, gate in seen[0].items():
        assert isinstance(gate, Mixture)
        assert sorted(gate.weights.tolist())[-1] == pytest.approx(1)
        assert gate.active == tuple(range(len(space.choices()[name].options)))
    assert sum(g is not None and bool(g.abs().max() > 0) for g in gradients) >= 3


def test_sparsemax_projects_onto_the_simplex() -> None:
    """T14: (0.1, 1.1, 0.2) -> (0, .95, .05), and the nearest point of the simplex by search."""
    assert sparsemax(torch.tensor([0.1, 1.1, 0.2])).tolist() == pytest.approx([0, 0.95, 0.05])
    generator = torch.Generator().manual_seed(0)
    constraints = {"type": "eq", "fun": lambda q: q.sum() - 1}
    for _ in range(5):
        z = torch.randn(4, generator=generator, dtype=torch.float64)
        p = sparsemax(z)
        assert float(p.sum()) == pytest.approx(1)
        distance = partial(lambda z, q: ((q - z) ** 2).sum(), z.numpy())
        found = minimize(distance, [0.25] * 4, bounds=[(0, 1)] * 4, constraints=constraints)
        assert p.tolist() == pytest.approx(found.x.tolist(), abs=1e-4)
    assert torch.autograd.gradcheck(
        sparsemax, (torch.tensor([0.3, 0.1, 1.0], dtype=torch.float64, requires_grad=True),)
    )


@pytest.mark.parametrize("make", [DARTS, DrNAS, GDAS, ProxylessNAS])
def test_alpha_and_weights_learn_apart(make: type[Strategy]) -> None:
    """T16: a step of alpha leaves the weights as they are, to the bit, and a step of the weights alpha.

    What belongs to alpha is told by identity: a layer whose name holds `arch`, `alpha` or `beta` is trained.
    """

    class Named(ToyElastic):
        def __init__(self) -> None:
            super().__init__()
            self.search_arch_block = torch.nn.Linear(10, 10)

        def forward(self, x: Tensor, gates: Gates) -> Tensor:
            return self.search_arch_block(super().forward(x, gates))

    space = Named()
    strategy = make(space)
    alphas = {name: alpha.detach().clone() for name, alpha in strategy.alphas.values.items()}  # type: ignore[attr-defined]
    weights = {name: parameter.detach().clone() for name, parameter in space.named_parameters()}
    step = step_of(space)
    step.loss(step.train, strategy.weight_gates(torch.Generator().manual_seed(0))).backward()
    step.optimizer.step()
    assert all(torch.equal(alpha, alphas[name]) for name, alpha in strategy.alphas.values.items())  # type: ignore[attr-defined]
    assert not torch.equal(space.search_arch_block.weight, weights["search_arch_block.weight"])
    weights = {name: parameter.detach().clone() for name, parameter in space.named_parameters()}
    strategy.before_step(step)
    strategy.after_step(step)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in space.named_parameters())
    assert any(not torch.equal(alpha, alphas[name]) for name, alpha in strategy.alphas.values.items())  # type: ignore[attr-defined]


def test_alpha_takes_the_same_way_twice(space: ToyElastic) -> None:
    """T20: one seed, one trajectory of alpha."""

    def way() -> list[Tensor]:
        torch.manual_seed(0)
        strategy = DrNAS(ToyElastic())
        for seed in range(10):
            strategy.before_step(step_of(strategy.space, seed=seed))  # type: ignore[arg-type]
        return strategy.alphas.parameters()

    assert all(torch.equal(a, b) for a, b in zip(way(), way(), strict=True))


def ridge(decay: float, *, effective: bool) -> tuple[Tensor, ElasticLinear, Tensor]:
    """Ridge regression in superposed features at its optimum in W: theta with its gradient, layer, coverage."""
    torch.manual_seed(0)
    choice = ElasticChoice("c", (2, 5))
    layer = ElasticLinear(Dim([choice]), 1, bias=False, mode="superpose").double()
    x, y = torch.randn(40, 5, dtype=torch.float64), torch.randn(40, 1, dtype=torch.float64)
    theta = torch.tensor([0.6, 0.4], dtype=torch.float64, requires_grad=True)
    u = torch.tensor([1.0, 1.0, 0.4, 0.4, 0.4], dtype=torch.float64)
    # L = |x (W u) - y|^2 / (2 n) + decay / 2 |W|^2, or |W u|^2: the normal equations in W
    scaled = x * u
    penalty = torch.diag(u**2 if effective else torch.ones(5, dtype=torch.float64))
    optimum = torch.linalg.solve(scaled.T @ scaled / 40 + decay * penalty, scaled.T @ y / 40)
    with torch.no_grad():
        layer.weight.copy_(optimum.T)
    weight, _ = layer.effective({"c": mixture(theta)})
    loss = ((x @ weight.T - y) ** 2).sum() / 80
    if effective:
        loss = loss + decay / 2 * (weight**2).sum()
    loss.backward()
    assert theta.grad is not None
    return theta.grad, layer, u


def test_decay_of_shared_weights_speaks_for_the_larger_option() -> None:
    """T18: at stationary W, dL/dtheta_big - dL/dtheta_small = -(lambda / m_ring) ||W_ring||^2, without any benefit."""
    g, layer, u = ridge(0.3, effective=False)
    ring = float((layer.weight.detach()[0, 2:] ** 2).sum())
    assert float(g[1] - g[0]) == pytest.approx(-(0.3 / float(u[2])) * ring, rel=1e-6)
    assert float(g[1] - g[0]) < -1e-4
    g, _, _ = ridge(0.0, effective=False)
    assert float(g[1] - g[0]) == pytest.approx(0, abs=1e-10)


def test_decay_of_effective_weights_does_not() -> None:
    """T18: with lambda / 2 ||W * M||^2 in both losses the difference is 0."""
    g, _, _ = ridge(0.3, effective=True)
    assert float(g[1] - g[0]) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("mode", ["gate", "superpose"])
def test_the_penalty_is_of_the_weights_that_count(mode: Mode) -> None:
    """lambda / 2 sum ||W * M||^2, on a path of its parts; the optimiser no longer shrinks them, but still the rest."""
    torch.manual_seed(0)
    space = ToyElastic(mode)
    penalty = EffectiveDecay(space, 0.3)
    path = space.gates(space.sample(torch.Generator().manual_seed(1)))
    layers = [m for m in space.modules() if isinstance(m, ElasticConv2d | ElasticLinear)]
    parts = [layer.extract(path).weight for layer in layers]
    assert float(penalty(path).detach()) == pytest.approx(
        0.15 * sum(float((w.detach() ** 2).sum()) for w in parts), rel=1e-5
    )
    strategy = DARTS(space)
    x, y = batch()
    training = SupernetTraining(
        space,
        strategy,
        TrainSettings(epochs=1, weight_decay=0.3),
        [(x, y)],
        validation=[(x, y)],
        task=TASK,
        generator=torch.Generator(),
        seed=0,
        penalty=penalty,
    )
    shrunk = {id(p) for group in training.optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert not shrunk & {id(layer.weight) for layer in layers}
    training.run_epoch()
    with user_error("supernet.decay", "unsupported"):
        EffectiveDecay(ToySpace(), 0.1)


def test_binary_gates_of_elastic_choices_have_their_exact_gradient(space: ToyElastic) -> None:
    """b_j = dL/dg_j of every part, by finite differences of the gate; also where only two options are asked for."""
    space.double().eval()
    x, y = batch()
    x = x.double()
    path = {name: len(choice.options) - 1 for name, choice in space.choices().items()}

    def loss(gates: Mapping[str, object]) -> Tensor:
        return F.cross_entropy(space(x, {**path, **gates}), y)  # type: ignore[dict-item]

    _, b = gate_gradients(space, loss, path, {"width": range(3), "heads": (0, 2)})
    assert float(b["heads"][1]) == 0
    for name, indices in (("width", range(3)), ("heads", (0, 2))):
        for j in indices:
            row = torch.zeros(3, dtype=torch.float64)
            row[2] = 1
            sides = [float(loss({name: mixture(row + s * 1e-5 * torch.eye(3)[j])}).detach()) for s in (1, -1)]
            assert float(b[name][j]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-4, abs=1e-7)


def test_a_price_pushes_alpha_to_cheaper_options(space: ToyElastic) -> None:
    """mu E / E_max: the slope is the exact expected cost's, and with a high price the cheapest network wins."""
    strategy = DARTS(space, cost_weight=50.0, alpha_lr=0.1)
    for seed in range(30):
        strategy.before_step(step_of(space, seed=seed))
    assert space.gates(strategy.preferred()) == dict.fromkeys(space.choices(), 0)
    assert strategy.uses_cost
    assert strategy.end_epoch(0, 1)["expected_macs"] < 20_000


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_target_holds_what_is_chosen(space: ToyElastic, share: float) -> None:
    """The network chosen keeps the limit and is near it, wherever the preferences lie."""
    strategy = ProxylessNAS(space, loss="none")
    costs, region = strategy.costs, strategy.region
    limit = costs.cheapest(region) + share * (costs.most_expensive(region) - costs.cheapest(region))
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        p = {n: torch.rand(len(c.options), generator=generator).softmax(0) for n, c in space.choices().items()}
        found = costs.cost(likeliest_within(space, p, region, costs, limit))
        assert costs.cheapest(region) <= found <= limit
        assert found >= 0.6 * limit


def test_a_sandwich_step_has_both_ends_and_one_teacher(space: ToyElastic) -> None:
    strategy = Sandwich(space, random_paths=2)
    paths = strategy.sample_paths(torch.Generator().manual_seed(0))
    assert len(paths) == 4
    assert dict(paths[0]) == {name: len(choice.options) - 1 for name, choice in space.choices().items()}
    assert set(paths[1].values()) == {0}
    x, y = batch()
    logits = [space(x, path) for path in paths]
    losses = [strategy.path_loss(TASK, z, y) for z in logits]
    assert torch.equal(losses[0], F.cross_entropy(logits[0], y))
    teacher = logits[0].detach().softmax(1)
    for z, loss in zip(logits[1:], losses[1:], strict=True):
        assert torch.allclose(loss, -(teacher * z.log_softmax(1)).sum(1).mean(), atol=1e-6)
    plain = Sandwich(space, distill=False)
    plain.sample_paths(torch.Generator().manual_seed(0))
    assert all(torch.equal(plain.path_loss(TASK, z, y), F.cross_entropy(z, y)) for z in logits)
