"""Optimal Brain Surgeon with M-FAC's inverse: single steps by hand, updates by the quadratic model, schedules."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from espalier.nas.task import Batch, Classification
from espalier.nas.training import Diverged
from espalier.pruning.mfac.gradients import Layout, gradients
from espalier.pruning.mfac.inverse import InverseFisher
from espalier.pruning.mfac.obs import MFACPruner, saliencies, saliency, updated
from espalier.pruning.patterns import Globally, Layerwise, NOfM
from espalier.pruning.weights import prunable_weights
from user_errors import user_error

TASK = Classification(4)


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 4)]
    return nn.Sequential(*layers).to(dtype)


def some_batches(count: int = 3, size: int = 8, dtype: torch.dtype = torch.float32) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 2, 4, 4, generator=generator).to(dtype), torch.randint(4, (size,), generator=generator))
        for _ in range(count)
    ]


def pruner_of(model: nn.Module, pattern: Any = None, *, iterations: int = 0, **options: Any) -> MFACPruner:
    weights = prunable_weights(model)
    pattern = pattern or Globally(round(0.8 * sum(weight.numel() for weight in weights.values())))
    options = {"rows": 12, "batch_size": 4, "recomputations": 4, "batches": some_batches()} | options
    return MFACPruner(weights, pattern, iterations=iterations, model=model, task=TASK, **options)


# The gradients


def test_rows_are_gradients_of_mini_batches_of_weights_that_are_kept() -> None:
    model, batches = network(), some_batches()
    weights = prunable_weights(model)
    generator = torch.Generator().manual_seed(2)
    masks = {name: torch.rand(weight.shape, generator=generator) < 0.5 for name, weight in weights.items()}
    rows = gradients(model, TASK, batches, weights, 5, masks=masks, batch_size=4)

    model.eval()
    for row, (x, y) in zip(rows, [(x[at], y[at]) for x, y in batches for at in (slice(4), slice(4, 8))], strict=False):
        model.zero_grad()
        F.cross_entropy(model(x), y).backward()
        kept = [weight.grad[masks[name]] for name, weight in weights.items() if weight.grad is not None]
        torch.testing.assert_close(row, torch.cat(kept))
    assert rows.shape == (5, sum(int(mask.sum()) for mask in masks.values()))


def test_a_short_loader_is_gone_through_again() -> None:
    model = network()
    rows = gradients(model, TASK, some_batches(3, size=9), prunable_weights(model), 14, batch_size=4)
    assert rows.shape[0] == 14  # six whole mini-batches in an epoch, and the ninth image of none of them
    assert torch.equal(rows[6:12], rows[:6])
    assert torch.equal(rows[12:], rows[:2])
    assert bool((rows != 0).any(dim=1).all())


def test_smaller_batches_are_taken_as_they_are() -> None:
    model, batches = network(), some_batches(2, size=3)
    assert torch.equal(
        gradients(model, TASK, batches, prunable_weights(model), 2, batch_size=16),
        gradients(model, TASK, batches, prunable_weights(model), 2, batch_size=3),
    )


def test_batches_that_end_are_an_error() -> None:
    model = network()
    with user_error("data", "too_few"):
        gradients(model, TASK, iter(some_batches(3)), prunable_weights(model), 4, batch_size=8)
    with user_error("data", "too_few"):
        gradients(model, TASK, [], prunable_weights(model), 1)


def test_everything_is_afterwards_as_it_was() -> None:
    model = network().train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    TASK.loss(model(some_batches()[0][0]), some_batches()[0][1]).backward()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    random = torch.get_rng_state()

    rows = gradients(model, TASK, some_batches(), prunable_weights(model), 3)

    assert bool((rows[:, : 8 * 2 * 9] != 0).any())  # of the frozen layer too
    assert not model[0].weight.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for p, before in zip(model.parameters(), grads, strict=True):
        assert (p.grad is None and before is None) or torch.equal(p.grad, before)


def test_gradients_that_are_not_finite_are_named() -> None:
    model, batches = network(), some_batches()
    batches[1][0][0, 0, 0, 0] = torch.nan
    with pytest.raises(Diverged, match="1 of 3 gradients are not finite"):
        gradients(model, TASK, batches, prunable_weights(model), 3)


def test_a_layout_takes_apart_what_it_put_together() -> None:
    weights = prunable_weights(network())
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.rand(weight.shape, generator=generator) < 0.3 for name, weight in weights.items()}
    for chosen in (None, masks):
        layout = Layout(weights, chosen)
        vector = layout.gather({name: weight.detach() for name, weight in weights.items()})
        for name, part in layout.scatter(vector, fill=-7.0).items():
            kept = torch.ones_like(part, dtype=torch.bool) if chosen is None else chosen[name]
            assert torch.equal(part, torch.where(kept, weights[name].detach(), -7.0))


# Saliencies and updates


def test_two_weights_by_hand() -> None:
    """H = [[2, 1], [1, 2]] and w = (1, .5): rho = (.75, .1875), and without w_2 the other becomes 1.25."""
    inverse = InverseFisher(torch.ones(1, 2, dtype=torch.float64), 1.0)
    w, drop = torch.tensor([1.0, 0.5], dtype=torch.float64), torch.tensor([False, True])
    torch.testing.assert_close(saliency(w, inverse.diagonal()), torch.tensor([0.75, 0.1875]).double())
    for update in ("joint", "singles"):
        torch.testing.assert_close(updated(w, inverse, drop, update), torch.tensor([1.25, 0.0]).double())
    assert updated(w, inverse, drop, "none").tolist() == [1.0, 0.0]


def loss_of(change: Tensor, fisher: Tensor) -> float:
    return float(change @ fisher @ change) / 2


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(1, 11), st.sampled_from([1e-3, 1e-1, 1.0]))
def test_the_joint_update_is_the_best_there_is(seed: int, m: int, dropped: int, damp: float) -> None:
    """By the dense formula w - F⁻¹_:P (F⁻¹_PP)⁻¹ w_P, and never worse than other updates; with m below d and above."""
    generator = torch.Generator().manual_seed(seed)
    g, w = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((m, 12), (12,)))
    drop = torch.zeros(12, dtype=torch.bool)
    drop[torch.randperm(12, generator=generator)[:dropped]] = True
    fisher = damp * torch.eye(12, dtype=torch.float64) + g.T @ g / m
    dense = torch.linalg.inv(fisher)
    exact = w - dense[:, drop] @ torch.linalg.solve(dense[drop][:, drop], w[drop])

    inverse = InverseFisher(g, damp)
    joint, singles, none = (updated(w, inverse, drop, update) for update in ("joint", "singles", "none"))
    torch.testing.assert_close(joint, exact, rtol=1e-9, atol=1e-9)
    assert bool((joint[drop] == 0).all() and (singles[drop] == 0).all() and (none[drop] == 0).all())
    least = loss_of(joint - w, fisher)
    assert least <= loss_of(singles - w, fisher) * (1 + 1e-9)
    assert least <= loss_of(none - w, fisher) * (1 + 1e-9)
    if dropped == 1:  # then both are what Hassibi & Stork do to one weight, at a price of rho
        torch.testing.assert_close(joint, singles, rtol=1e-9, atol=1e-9)
        assert least == pytest.approx(float(saliency(w, inverse.diagonal())[drop]), rel=1e-9)


@pytest.mark.parametrize("m", [4, 40])
def test_blocks_are_updated_each_for_itself(m: int) -> None:
    generator = torch.Generator().manual_seed(0)
    g, w = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((m, 50), (50,)))
    drop = torch.rand(50, generator=generator) < 0.4
    drop[:16] = False  # nothing goes in the first block
    whole = InverseFisher(g, 1e-2, block=16).compensate(w, drop)
    each = [
        InverseFisher(part, 1e-2).compensate(*rest)
        for part, *rest in zip(g.split(16, dim=1), w.split(16), drop.split(16), strict=True)
    ]
    torch.testing.assert_close(whole, torch.cat(each), rtol=1e-12, atol=1e-12)
    assert torch.equal(whole[:16], w[:16])


def test_an_update_from_float32_is_exact_where_fewer_weights_than_gradients_stay() -> None:
    generator = torch.Generator().manual_seed(0)
    g, w = torch.randn(32, 60, generator=generator), torch.randn(60, generator=generator)
    drop = torch.arange(60) >= 12
    exact = InverseFisher(g.double(), 1e-5).compensate(w, drop)
    torch.testing.assert_close(InverseFisher(g, 1e-5).compensate(w, drop), exact, rtol=1e-4, atol=1e-4)


def test_saliencies_are_those_of_the_dense_inverse() -> None:
    model, batches = network(dtype=torch.float64), some_batches(dtype=torch.float64)
    weights = prunable_weights(model)
    rho = saliencies(model, TASK, batches, weights, rows=6, damp=1e-3, batch_size=4)
    g = gradients(model, TASK, batches, weights, 6, batch_size=4)
    fisher = 1e-3 * torch.eye(g.shape[1], dtype=torch.float64) + g.T @ g / 6
    w = torch.cat([weight.detach().flatten() for weight in weights.values()])
    exact = w.square() / (2 * torch.linalg.inv(fisher).diagonal())
    torch.testing.assert_close(torch.cat([rho[name].flatten() for name in weights]), exact, rtol=1e-9, atol=1e-15)
    assert all(rho[name].shape == weight.shape for name, weight in weights.items())


# The pruner


def test_densities_fall_by_the_same_factor() -> None:
    """From 0 to .5 in 16 computations: .0424, .0830, ..., .5 (the authors' schedule)."""
    model = network()
    n = sum(weight.numel() for weight in prunable_weights(model).values())
    pruner = pruner_of(model, Globally(n // 2), recomputations=16)
    sparsities = [0.5 * pruner.share(done) for done in range(1, 17)]
    assert sparsities[:2] == pytest.approx([0.0424, 0.0830], abs=5e-5)
    assert sparsities[-1] == 0.5
    assert sparsities == pytest.approx([1 - 0.5 ** (j / 16) for j in range(1, 17)])


@pytest.mark.parametrize("update", ["joint", "singles", "none"])
def test_counts_are_exact_and_masks_only_shrink(update: str) -> None:
    model = network()
    weights = prunable_weights(model)
    pruner = pruner_of(model, iterations=8, visits=2, recomputations=4, update=update)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    n, before = sum(weight.numel() for weight in weights.values()), dict(pruner.kept)
    for iteration in range(1, 9):
        optimizer.zero_grad()
        TASK.loss(model(some_batches()[0][0]), some_batches()[0][1]).backward()
        optimizer.step()
        pruner.step()
        zeros = {name: weight == 0 for name, weight in weights.items()}
        density = 0.2 ** ((1 if iteration < 5 else 2) / 2)  # of 20 % that stay, the root after the first visit
        assert sum(int(zero.sum()) for zero in zeros.values()) == pytest.approx(n * (1 - density), abs=1)
        for name, kept in pruner.kept.items():
            assert torch.equal(~kept, zeros[name])
            assert not bool((kept & ~before[name]).any())
        before = dict(pruner.kept)
    assert pruner.masks is not None
    assert sum(int((~kept).sum()) for kept in pruner.masks.values()) == round(0.8 * n)
    assert len(pruner.curvature_ratios) == 8


def test_at_once_without_a_loop() -> None:
    model = network()
    pruner = pruner_of(model)
    masks = pruner.finalize()
    n = sum(kept.numel() for kept in masks.values())
    assert sum(int((weight == 0).sum()) for weight in prunable_weights(model).values()) == round(0.8 * n)
    assert pruner.done == 4
    assert pruner.finalize() is masks


def test_without_gradients_weights_go_by_magnitude(caplog: pytest.LogCaptureFixture) -> None:
    class Flat(Classification):
        def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
            return 0 * logits.sum()

    model = network()
    weights = prunable_weights(model)
    by_magnitude = Globally(100).select({name: weight.detach().abs() for name, weight in weights.items()})
    expected = {name: torch.where(by_magnitude[name], weight.detach(), 0) for name, weight in weights.items()}
    options: dict[str, Any] = {"batches": some_batches(), "rows": 4, "recomputations": 3}
    pruner = MFACPruner(weights, Globally(100), iterations=0, model=model, task=Flat(4), **options)
    with caplog.at_level(logging.WARNING):
        masks = pruner.finalize()
    assert all(torch.equal(masks[name], by_magnitude[name]) for name in weights)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())
    assert pruner.curvature_ratios == [0.0] * 3
    assert "so weights go by magnitude" in caplog.text


@pytest.mark.parametrize(("share", "warns"), [(1e-4, True), (0.2, False)])
def test_it_tells_when_damp_is_all_there_is(share: float, warns: bool, caplog: pytest.LogCaptureFixture) -> None:
    """With 272 weights: no direction has more than .03 lambda beside lambda, or they have 54 lambda in all."""
    model = network()
    g = gradients(model, TASK, some_batches(), prunable_weights(model), 12, batch_size=4)
    pruner = pruner_of(model, damp=float(g.square().mean()) / share, recomputations=1)
    with caplog.at_level(logging.INFO):
        masks = pruner.finalize()
    assert pruner.curvature_ratios == pytest.approx([share])
    assert f"of 272 weights left, mean(diag GᵀG / m) is {share:.3g} of damp" in caplog.text
    assert any(record.levelno == logging.WARNING for record in caplog.records) == warns
    by_magnitude = pruner.pattern.select({name: w.detach().abs() for name, w in prunable_weights(network()).items()})
    assert all(torch.equal(masks[name], by_magnitude[name]) for name in masks) == warns


def test_groups_of_few_weights_need_few_computations() -> None:
    """2:4 knows none, one or two zeros in a group: of 16 computations two change anything."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 4))
    pruner = pruner_of(model, NOfM(2, 4), recomputations=16)
    assert int((~pruner.finalize()["1.weight"]).sum()) == 64
    assert len(pruner.curvature_ratios) == 2
    assert pruner.done == 16


def test_a_pattern_without_zeros_needs_no_gradients() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pruner = pruner_of(model, Layerwise({"0.weight": 0, "5.weight": 0}), batches=[])
    assert all(bool(kept.all()) for kept in pruner.finalize().values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_asking_changes_nothing() -> None:
    model = network()
    pruner = pruner_of(model, recomputations=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    asked = pruner.select()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    masks = pruner.finalize()
    assert all(torch.equal(asked[name], masks[name]) for name in masks)


def test_resumed_between_two_visits_it_ends_the_same() -> None:
    def loop(model: nn.Module, pruner: MFACPruner, steps: range) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for step in steps:
            optimizer.zero_grad()
            x, y = some_batches()[step % 3]
            TASK.loss(model.eval()(x), y).backward()
            optimizer.step()
            pruner.step()

    whole, first = network(), network()
    loop(whole, pruner_of(whole, iterations=6, visits=3), range(8))
    pruner = pruner_of(first, iterations=6, visits=3)
    loop(first, pruner, range(4))
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "pruner": pruner.state_dict()}, file)

    state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    second = network(seed=1)
    second.load_state_dict(state["model"])
    pruner = pruner_of(second, iterations=6, visits=3)
    pruner.load_state_dict(state["pruner"])
    loop(second, pruner, range(4, 8))
    assert all(torch.equal(tensor, whole.state_dict()[name]) for name, tensor in second.state_dict().items())


@pytest.mark.parametrize(
    "option",
    [{"visits": 0}, {"recomputations": 0}, {"rows": 0}, {"batch_size": -1}, {"block": 0}, {"damp": 0.0}],
)
def test_options_out_of_range(option: dict[str, Any]) -> None:
    with user_error(next(iter(option)), "out_of_range"):
        pruner_of(network(), **option)


@pytest.mark.parametrize("options", [{"visits": 4, "iterations": 3}, {"visits": 2}])
def test_visits_need_an_iteration_each(options: dict[str, Any]) -> None:
    with user_error("visits", "conflict", says=str(options["visits"])):
        pruner_of(network(), **options)


def test_an_unknown_update_is_named() -> None:
    with user_error("update", "unknown", nearest="joint"):
        pruner_of(network(), update="jointly")
