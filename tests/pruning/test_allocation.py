"""Allocations by their exact numbers: densities, scores, the dynamic program by hand and by brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from espalier.nas.cost.count import count
from espalier.pruning.allocation import erk, global_magnitude, lamp, uniform
from espalier.pruning.allocation.choices import GRID, choices
from espalier.pruning.allocation.dynamic import cheapest
from espalier.pruning.allocation.erk import raw_density
from espalier.pruning.allocation.lgreco import best_within, cheapest_within, corrected, lgreco
from espalier.pruning.allocation.macs import layer_macs
from espalier.pruning.allocation.rounding import proportional_shares, round_to_total
from espalier.pruning.allocation.scored import lamp_scores, saliency
from espalier.pruning.weights import Weights, prunable_weights
from user_errors import user_error

RIGL_SHAPES = [(64, 3, 3, 3), (128, 64, 3, 3), (256, 128, 3, 3), (10, 256)]


def empty(shapes: list[tuple[int, ...]]) -> Weights:
    return {str(i): nn.Parameter(torch.zeros(shape)) for i, shape in enumerate(shapes)}


def test_uniform_is_uniform() -> None:
    assert list(uniform(empty([(10, 10), (20, 10), (7, 1)]), 0.9).values()) == [90, 180, 6]


def test_the_first_layer_dense_and_the_last_not_too_sparse() -> None:
    """Gale et al. 2019: of 400 weights 40 stay, 10 + 20 of them in the first and the last layer."""
    weights = empty([(2, 5), (29, 10), (10, 10)])
    assert list(uniform(weights, 0.9, dense_first=True, last_at_most=0.8).values()) == [0, 280, 80]
    with user_error("sparsity", "infeasible", says="31"):
        uniform(weights, 0.95, dense_first=True, last_at_most=0.8)


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [
        (0.8, [0, 0.67893, 0.84190, 0]),
        (0.9, [0, 0.84926, 0.92577, 0]),
        (0.95, [0, 0.93442, 0.96771, 0]),
    ],
)
def test_erk_densities(sparsity: float, expected: list[float]) -> None:
    """density_l = min(1, ε (n_out + n_in + k_h + k_w) / (n_out n_in k_h k_w)) with ε solved for."""
    weights = empty(RIGL_SHAPES)
    zeros = erk(weights, sparsity)
    for (name, weight), s in zip(weights.items(), expected, strict=True):
        assert zeros[name] / weight.numel() == pytest.approx(s, abs=1e-5)


def test_er_has_no_kernel_in_it() -> None:
    assert raw_density((128, 64, 3, 3)) == (128 + 64 + 6) / (128 * 64 * 9)
    assert raw_density((128, 64, 3, 3), kernel=False) == (128 + 64) / (128 * 64)


@given(
    st.lists(st.tuples(st.floats(0.01, 100), st.integers(1, 500)), min_size=1, max_size=8),
    st.floats(0, 1),
)
def test_shares_fill_up_to_their_bounds_in_proportion(layers: list[tuple[float, int]], part: float) -> None:
    q, high = [a for a, _ in layers], [b for _, b in layers]
    total = len(layers) + round(part * (sum(high) - len(layers)))
    shares = proportional_shares(q, total, [1] * len(high), high)
    assert shares.sum() == pytest.approx(total)
    inside = [s / a for s, a, h in zip(shares, q, high, strict=True) if 1 < s < h]
    assert inside == pytest.approx(inside[:1] * len(inside))
    rounded = round_to_total(shares, total)
    assert sum(rounded) == total
    assert all(1 <= k <= h and abs(k - s) < 1 + 1e-6 for k, h, s in zip(rounded, high, shares, strict=True))


def test_largest_remainders_are_rounded_up() -> None:
    assert round_to_total([1.2, 2.7, 0.6, 3.5], 8) == [1, 3, 1, 3]
    assert round_to_total([4.9999999999, 2.0000000001], 7) == [5, 2]


def test_lamp_scores_by_hand() -> None:
    """w_u² / Σ of the squares from w_u up: of 1, 2, 3 they are 1/14, 4/13, 1."""
    scores = lamp_scores(torch.tensor([[-3.0, 1.0, 2.0]]))
    assert scores.tolist()[0] == pytest.approx([1, 1 / 14, 4 / 13])


def test_lamp_never_cuts_a_layer_and_does_not_see_its_scale() -> None:
    torch.manual_seed(0)
    weights = prunable_weights(nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 10)))
    zeros = lamp(weights, 0.99)
    with torch.no_grad():
        weights["0.weight"].mul_(1e-4)
    assert lamp(weights, 0.99) == zeros
    assert 600 - global_magnitude(weights, 0.99)["0.weight"] == 1  # by magnitude all but the spared one would go
    assert 600 - global_magnitude(weights, 0.99, least_density=0.005)["0.weight"] == 3
    assert 600 - global_magnitude(weights, 0.9, normalise=True)["0.weight"] > 30


def test_saliencies_decide_over_all_layers() -> None:
    weights = empty([(1, 4), (1, 2)])
    rho = {"0": torch.tensor([[4.0, 3.0, 2.0, 1.0]]), "1": torch.tensor([[0.5, 2.5]])}
    assert saliency(weights, 0.5, rho) == {"0": 2, "1": 1}
    with user_error("saliencies.1", "missing", says="(1, 2)"):
        saliency(weights, 0.5, {"0": rho["0"]})
    with user_error("saliencies.0", "invalid"):
        saliency(weights, 0.5, {**rho, "0": torch.full((1, 4), torch.nan)})


ERRORS, COSTS = np.array([[1.0, 2, 4], [1, 3, 5]]), np.array([[10.0, 6, 2], [8, 4, 1]])


@pytest.mark.parametrize(("budget", "cost", "chosen"), [(5, 10, [2, 0]), (7, 6, [2, 1]), (9, 3, [2, 2])])
def test_the_dynamic_program_by_hand(budget: float, cost: float, chosen: list[int]) -> None:
    found = cheapest(ERRORS, COSTS, budget)
    assert found == chosen
    assert COSTS[[0, 1], found].sum() == cost


def brute_force(errors: np.ndarray, costs: np.ndarray, budget: float) -> float:
    layers = np.arange(len(errors))
    every = (list(c) for c in itertools.product(range(errors.shape[1]), repeat=len(errors)))
    return min((costs[layers, c].sum() for c in every if errors[layers, c].sum() <= budget), default=math.inf)


def test_it_is_brute_force_on_random_tables() -> None:
    """50 tables of 4 layers and 5 choices, D = 10,000."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        errors, costs = rng.uniform(size=(4, 5)), rng.uniform(size=(4, 5))
        budget = rng.uniform(errors.min(axis=1).sum(), errors.max(axis=1).sum())
        found = cheapest(errors, costs, budget)
        assert errors[np.arange(4), found].sum() <= budget
        assert costs[np.arange(4), found].sum() == pytest.approx(brute_force(errors, costs, budget))


tables = st.integers(1, 4).flatmap(
    lambda layers: st.integers(1, 4).flatmap(
        lambda options: st.tuples(
            *[
                st.lists(
                    st.lists(st.integers(0, 20), min_size=options, max_size=options), min_size=layers, max_size=layers
                )
            ]
            * 2
        )
    )
)


@settings(max_examples=100, deadline=None)
@given(tables, st.integers(0, 60))
def test_whole_numbers_of_buckets_are_solved_exactly(rows: tuple[list[list[int]], ...], budget: int) -> None:
    errors, costs = (np.array(part, dtype=float) for part in rows)
    best = brute_force(errors, costs, budget)
    if math.isinf(best):
        with user_error("budget", "infeasible"):
            cheapest(errors, costs, budget)
        return
    room = budget - errors.min(axis=1).sum()
    found = cheapest(errors, costs, budget, buckets=max(1, int(room)))
    layers = np.arange(len(errors))
    assert errors[layers, found].sum() <= budget
    assert costs[layers, found].sum() == best


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 200))
def test_coarse_buckets_waste_less_than_one_in_each_layer(seed: int, buckets: int) -> None:
    """Rounding up never breaks the budget, and nothing within the budget less L buckets is cheaper."""
    rng = np.random.default_rng(seed)
    errors, costs = rng.uniform(-1, 1, size=(3, 4)), rng.uniform(-1, 1, size=(3, 4))
    smallest, largest = errors.min(axis=1).sum(), errors.max(axis=1).sum()
    budget = rng.uniform(smallest, largest)
    found = cheapest(errors, costs, budget, buckets=buckets)
    assert errors[np.arange(3), found].sum() <= budget + 1e-9
    bucket = (budget - smallest) / buckets
    assert costs[np.arange(3), found].sum() <= brute_force(errors, costs, budget - 3 * bucket) + 1e-9


def test_an_impossible_budget_is_refused() -> None:
    with user_error("budget", "infeasible", says="add up to 2"):
        cheapest(ERRORS, COSTS, 1.5)
    assert cheapest(ERRORS, COSTS, 2.0) == [0, 0]
    assert cheapest(ERRORS - 1, COSTS, 0.0) == [0, 0]


def random_weights() -> Weights:
    torch.manual_seed(0)
    sizes = {"a": (40, 30, 1.0), "b": (30, 30, 0.2), "c": (10, 30, 3.0)}
    return {name: nn.Parameter(torch.randn(out, ins) * scale) for name, (out, ins, scale) in sizes.items()}


def dropped(weights: Weights, zeros: dict[str, int]) -> float:
    """Σ ||w - top(w)||²."""
    return sum(float((w.detach() ** 2).flatten().double().sort().values[: zeros[n]].sum()) for n, w in weights.items())


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.99])
def test_at_equal_numbers_of_weights_less_is_lost_than_uniformly(sparsity: float) -> None:
    weights = random_weights()
    best = dropped(weights, lgreco(weights, sparsity))
    assert best < dropped(weights, uniform(weights, sparsity))
    # for squares of weights the optimum is known: it is that of the global threshold
    assert best >= dropped(weights, global_magnitude(weights, sparsity)) * (1 - 1e-9)
    assert best <= dropped(weights, global_magnitude(weights, sparsity)) * 1.05  # as fine as the grid


@pytest.mark.parametrize("sparsity", [0.5, GRID[14], 0.97])
def test_at_the_error_of_uniform_sparsity_the_network_is_never_dearer(sparsity: float) -> None:
    weights = random_weights()
    macs = {"a": 1.0, "b": 100.0, "c": 10.0}
    table = choices(weights, macs=macs)
    zeros = cheapest_within(table, sparsity)
    alike = uniform(weights, sparsity)

    def cost(counts: dict[str, int]) -> float:
        return sum(macs[n] * (w.numel() - counts[n]) for n, w in weights.items())

    step = max(abs(b - a) for a, b in itertools.pairwise(GRID))
    assert table.error_at(list(zeros.values())) <= table.error_at(list(alike.values())) * 1.001
    assert cost(zeros) <= cost(alike) * (1 if sparsity in GRID else 1 + step)
    looser = cheapest_within(table, sparsity, alpha=2.0)
    assert cost(looser) <= cost(zeros)


def test_under_a_cost_the_error_is_smallest() -> None:
    weights = random_weights()
    macs = {"a": 1.0, "b": 100.0, "c": 10.0}
    table = choices(weights, sparsities=(0.0, 0.5, 0.9), macs=macs)
    zeros = best_within(table, 50_000.0)
    assert sum(macs[n] * (w.numel() - zeros[n]) for n, w in weights.items()) <= 50_000
    every = itertools.product(range(3), repeat=3)
    fits = [c for c in every if table.costs[range(3), c].sum() <= 50_000]
    assert dropped(weights, zeros) == pytest.approx(min(table.errors[range(3), c].sum() for c in fits))


def test_latencies_move_zeros_to_the_slow_layer_at_the_same_sparsity() -> None:
    weights = {name: nn.Parameter(torch.randn(30, 30)) for name in ("fast", "slow")}
    density = [1 - r for r in GRID]
    latency = {"fast": [0.1 * d for d in density], "slow": [5.0 * d for d in density]}
    zeros = lgreco(weights, 0.8, choices(weights, costs=latency))
    assert sum(zeros.values()) == 1440
    assert zeros["slow"] > 1.1 * zeros["fast"]


def test_measured_errors_decide_where_they_are_given() -> None:
    weights = {name: nn.Parameter(torch.ones(10, 10)) for name in "ab"}
    sparsities = (0.0, 0.5, 0.9)
    table = choices(weights, sparsities=sparsities, errors={"a": [0.0, 0.5, 9.0], "b": [0.0, -0.1, 0.1]})
    assert lgreco(weights, 0.7, table) == {"a": 50, "b": 90}
    with user_error("errors.b", "missing", says="3"):
        choices(weights, sparsities=sparsities, errors={"a": [0.0, 0.5, 9.0]})
    with user_error("sparsities", "invalid"):
        choices(weights, sparsities=(0.5, 0.0))
    with user_error("table", "mismatch"):
        lgreco({"a": weights["a"]}, 0.5, table)


def test_corrections_take_the_lowest_and_give_back_the_highest() -> None:
    weights = {"a": nn.Parameter(torch.tensor([[1.0, 2, 3, 4]])), "b": nn.Parameter(torch.tensor([[1.5, 2.5, 9, 10]]))}
    table = choices(weights)
    assert corrected(table, [0, 0], 3) == [2, 1]
    assert corrected(table, [0, 0], 6) == [3, 3]
    assert corrected(table, [3, 2], 3) == [2, 1]
    assert corrected(table, [1, 2], 3) == [1, 2]


def test_macs_of_layers_are_those_of_the_network() -> None:
    """Σ of uses times weights is what `nas.cost.count` counts, without biases: grouped, strided, transposed, tokens."""
    convolutions = [nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 3, groups=4), nn.ConvTranspose2d(8, 4, 2, stride=2)]
    model = nn.Sequential(*convolutions, nn.Flatten(2), nn.Linear(100, 7), nn.Flatten(), nn.Linear(28, 5))
    for module in model:
        if hasattr(module, "bias"):
            module.bias = None
    macs = layer_macs(model, (3, 15, 15))
    assert macs == {"0.weight": 49.0, "1.weight": 25.0, "2.weight": 25.0, "4.weight": 4.0, "6.weight": 1.0}
    total = sum(macs[name] * weight.numel() for name, weight in prunable_weights(model).items())
    assert total == count(model, (3, 15, 15)).macs


class _Twice(nn.Module):
    """One layer that runs twice, one that never does, and attention over 6 tokens of width 4."""

    def __init__(self, encoder: bool) -> None:
        super().__init__()
        self.shared, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)
        self.attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True) if encoder else _Attention()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(self.shared(self.shared(x)))


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x, key=x, value=x)[0]


@pytest.mark.parametrize("encoder", [False, True])
def test_macs_of_attention_and_of_layers_that_run_twice_or_never(encoder: bool) -> None:
    model = _Twice(encoder)
    macs = layer_macs(model, (6, 4))
    assert macs["shared.weight"] == 12
    assert macs["unused.weight"] == 0
    assert {uses for name, uses in macs.items() if name.startswith("attention")} == {6.0}
    assert model.training
    assert not model.shared._forward_hooks
