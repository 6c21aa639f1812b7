"""The Fisher matrix of the last gradients: against the dense one, and as an optimiser."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espalier.nas.training import Diverged
from espalier.pruning.mfac.optimizer import MFAC
from espalier.pruning.mfac.window import Window
from user_errors import user_error


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dense(gradients: list[Tensor], m: int, damp: float) -> Tensor:
    """lambda I + (1/m) Σ g gᵀ over the last m; the 1/m also where there are fewer."""
    g = torch.stack(gradients[-m:])
    return damp * torch.eye(g.shape[1], dtype=g.dtype) + g.T @ g / m


def error(value: Tensor, exact: Tensor) -> float:
    return float((value - exact).abs().max() / exact.abs().max())


# The window


def test_twenty_gradients_through_a_window_of_eight() -> None:
    window, damp, x = Window(8, 30, 1e-2, dtype=torch.float64), 1e-2, normal(30, seed=1)
    gradients: list[Tensor] = []
    for step in range(20):
        gradients.append(normal(30, seed=10 + step))
        window.push(gradients[-1])
        fisher = dense(gradients, 8, damp)
        assert error(window.product(x), torch.linalg.solve(fisher, x)) < 1e-12
        assert error(window.newest(), torch.linalg.solve(fisher, gradients[-1])) < 1e-12


def test_the_first_direction_is_a_shortened_gradient() -> None:
    """g / (lambda + |g|² / m)."""
    window, g = Window(16, 50, 1e-3, dtype=torch.float64), normal(50)
    window.push(g)
    torch.testing.assert_close(window.newest(), g / (1e-3 + g @ g / 16), rtol=1e-12, atol=0)


def test_the_order_within_the_window_does_not_matter() -> None:
    gradients, x = list(normal(12, 40)), normal(40, seed=1)
    one, other = (Window(8, 40, 1e-3, dtype=torch.float64) for _ in range(2))
    for g in gradients:
        one.push(g)
    for g in reversed(gradients[-8:]):
        other.push(g)
    assert error(one.product(x), other.product(x)) < 1e-12


def test_the_newest_direction_is_exact_in_float32_at_any_dampening() -> None:
    """(g - Gᵀ A⁻¹ G g) / lambda would divide the rounding of g by lambda: more than the whole direction."""
    gradients, damp = [normal(400, seed=step).float() for step in range(32)], 1e-5
    window = Window(32, 400, damp)
    for g in gradients:
        window.push(g)
    exact = torch.linalg.solve(dense([g.double() for g in gradients], 32, damp), gradients[-1].double())
    assert torch.finfo(torch.float32).eps * float(gradients[-1].abs().max()) / damp > 1e-1 * float(exact.abs().max())
    assert error(window.newest().double(), exact) < 1e-6


def test_a_gram_matrix_lost_in_rounding_is_computed_anew() -> None:
    """Of gradients that are nearly multiples of each other: one rounding can bring an eigenvalue of A below 0."""
    gradients = [(normal(300) * (1 + step) + 1e-5 * normal(300, seed=9 + step)).float() for step in range(8)]
    window = Window(8, 300, 1e-9)
    for g in gradients:
        window.push(g)
    ridge = 8e-9 * torch.eye(8, dtype=torch.float64)
    g = torch.stack(gradients).double()
    values, vectors = torch.linalg.eigh(ridge + g @ g.T)
    assert float(values[0]) < torch.finfo(torch.float32).eps * float((g @ g.T).max())
    window.gram = g @ g.T - 2 * values[0] * torch.outer(vectors[:, 0], vectors[:, 0])  # what rounding may leave
    exact = 8 * g.T @ torch.linalg.inv(ridge + g @ g.T)[:, -1]
    assert error(window.newest().double(), exact) < 1e-3
    assert error(window.gram, g @ g.T) < 1e-12


def test_what_has_no_inverse() -> None:
    window = Window(4, 20, 1e-30, dtype=torch.float64)
    for _ in range(4):
        window.push(normal(20))
    with user_error("damp", "out_of_range"):
        window.newest()
    window.push(torch.full((20,), torch.nan))
    with pytest.raises(Diverged, match="not finite"):
        window.newest()


# The optimiser


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def backward(model: nn.Module, step: int = 0) -> None:
    generator = torch.Generator().manual_seed(step)
    x, y = torch.randn(10, 6, generator=generator), torch.randint(3, (10,), generator=generator)
    model.zero_grad()
    F.cross_entropy(model(x.to(next(model.parameters()))), y).backward()


def flat(tensors: Iterator[Tensor] | list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def test_steps_are_those_of_the_dense_matrix() -> None:
    """g = grad + wd p enters the window; v = β v + (1 - β) F⁻¹ g; p = p - lr v."""
    model = network().double()
    optimizer = MFAC(model.parameters(), lr=0.1, momentum=0.8, weight_decay=0.05, rows=4, damp=0.1)
    p, v, gradients = flat(model.parameters()), torch.zeros(83, dtype=torch.float64), []
    for step in range(7):
        backward(model, step)
        gradients.append(flat([q.grad for q in model.parameters() if q.grad is not None]) + 0.05 * p)
        v = 0.8 * v + 0.2 * torch.linalg.solve(dense(gradients, 4, 0.1), gradients[-1])
        p = p - 0.1 * v
        optimizer.step()
        torch.testing.assert_close(flat(model.parameters()), p, rtol=1e-10, atol=1e-12)


def test_groups_have_options_of_their_own() -> None:
    model = network().double()
    whole = copy.deepcopy(model)
    weights, biases = ([p for p in model.parameters() if p.dim() == dim] for dim in (2, 1))
    groups = [{"params": weights}, {"params": biases, "lr": 0.0}]
    optimizer = MFAC(groups, lr=0.1, rows=4, damp=0.1)
    backward(model)
    optimizer.step()
    backward(whole)
    MFAC(whole.parameters(), lr=0.1, rows=4, damp=0.1).step()
    for (name, p), before, together in zip(
        model.named_parameters(), network().double().parameters(), whole.parameters(), strict=True
    ):
        torch.testing.assert_close(p, before if "bias" in name else together, rtol=1e-12, atol=1e-14)


def test_of_a_quadratic_loss_the_direction_is_that_of_newton() -> None:
    """The gradients of a linear model's single images span all directions: F⁻¹ g, as lambda goes to 0."""
    g = normal(60, 5)
    window = Window(60, 5, 1e-10, dtype=torch.float64)
    for row in g:
        window.push(row)
    exact = torch.linalg.solve(g.T @ g / 60, g[-1])
    torch.testing.assert_close(window.newest(), exact, rtol=1e-4, atol=0)


def test_a_step_can_be_clipped() -> None:
    model = network()
    before = flat(model.parameters())
    optimizer = MFAC(model.parameters(), lr=0.5, rows=16, clip_norm=0.2)
    backward(model)
    optimizer.step()
    assert float((flat(model.parameters()) - before).norm()) == pytest.approx(0.1, rel=1e-4)

    other = network()
    backward(other)
    MFAC(other.parameters(), lr=0.5, rows=16).step()
    assert float((flat(other.parameters()) - before).norm()) > 1  # about lr m / |g|


def test_zeros_of_a_pruned_network_stay_zero() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[::2] = 0
    zeros = [p == 0 for p in model.parameters()]
    optimizer = MFAC(model.parameters(), lr=0.01, momentum=0.5, weight_decay=0.1, rows=8, sparse=True)
    assert optimizer.window.g.shape == (8, 83 - 24)
    for step in range(5):
        backward(model, step)
        optimizer.step()
    assert [torch.equal(p == 0, zero) for p, zero in zip(model.parameters(), zeros, strict=True)] == [True] * 4

    whole = network()  # among the others it is the same as if those were no parameters at all
    with torch.no_grad():
        whole[0].weight[::2] = 0
    optimizer = MFAC(whole.parameters(), lr=0.01, momentum=0.5, weight_decay=0.1, rows=8)
    for step in range(5):
        backward(whole, step)
        whole[0].weight.grad[::2] = 0
        optimizer.step()
    torch.testing.assert_close(flat(model.parameters()), flat(whole.parameters()), rtol=1e-4, atol=1e-6)


def test_parameters_without_a_gradient_stay() -> None:
    model = network()
    optimizer = MFAC(model.parameters(), lr=0.01, weight_decay=0.1, rows=4)
    backward(model)
    model[2].bias.grad = None
    before = model[2].bias.detach().clone()
    optimizer.step()
    assert torch.equal(model[2].bias, before)
    assert not bool(optimizer.window.g[:, -3:].any())


@pytest.mark.parametrize("sparse", [False, True])
def test_resumed_it_goes_on_the_same(sparse: bool) -> None:
    def made(model: nn.Module) -> MFAC:
        return MFAC(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1, rows=4, sparse=sparse)

    model = network()
    with torch.no_grad():
        model[2].weight[0] = 0
    optimizer = made(model)
    for step in range(6):
        backward(model, step)
        optimizer.step()
        if step == 2:
            buffer = io.BytesIO()
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)

    state = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    other = network()
    other.load_state_dict(state["model"])
    optimizer = made(other)
    optimizer.load_state_dict(state["optimizer"])
    for step in range(3, 6):
        backward(other, step)
        optimizer.step()
    assert torch.equal(flat(other.parameters()), flat(model.parameters()))


def test_a_state_of_another_optimiser_is_refused() -> None:
    model = network()
    state = MFAC(model.parameters(), rows=4).state_dict()
    with user_error("checkpoint", "mismatch", says="(4, 83)"):
        MFAC(model.parameters(), rows=5).load_state_dict(state)
    with user_error("checkpoint", "mismatch", says="sparse"):
        MFAC(model.parameters(), rows=4, sparse=True).load_state_dict(state)
    with pytest.raises(ValueError, match="all parameters at construction"):
        MFAC(model.parameters(), rows=4).add_param_group({"params": [nn.Parameter(torch.ones(1))]})


def test_a_closure_gives_the_loss() -> None:
    model = network()
    optimizer = MFAC(model.parameters(), rows=4)

    def closure() -> float:
        backward(model)
        return 1.5

    assert optimizer.step(closure) == 1.5
    assert bool(optimizer.window.g[0].any())


@pytest.mark.parametrize(
    "option",
    [{"lr": -1.0}, {"weight_decay": -0.1}, {"momentum": 1.0}, {"rows": 0}, {"damp": 0.0}, {"clip_norm": 0.0}],
)
def test_options_out_of_range(option: dict[str, Any]) -> None:
    with user_error(next(iter(option)), "out_of_range"):
        MFAC(network().parameters(), **option)


def test_nothing_to_optimise() -> None:
    with user_error("sparse", "conflict"):
        MFAC([nn.Parameter(torch.zeros(3))], sparse=True)


def test_it_learns_the_digits() -> None:
    """A small perceptron on 8x8 digits, in three epochs."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = MFAC(model.parameters(), lr=0.01, momentum=0.9, rows=32, damp=1e-3)
    for _ in range(3):
        for at in torch.randperm(1400).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(x[at]), y[at]).backward()
            optimizer.step()
    assert float((model(x[1400:]).argmax(1) == y[1400:]).float().mean()) > 0.85
