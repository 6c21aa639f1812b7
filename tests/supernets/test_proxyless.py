from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from bandit import Bandit, steps
from torch import nn

from espalier.nas.cost.macs import macs_table
from espalier.nas.cost.table import cost_table
from espalier.nas.errors import UserError
from espalier.nas.region import Region
from espalier.nas.spaces.mobilenet import MobileNet
from espalier.nas.spaces.nasbench201 import NasBench201
from espalier.nas.spaces.pixel1 import pixel1_table
from espalier.nas.task import Classification
from espalier.nas.training import TrainSettings
from espalier.supernets.alphas import Alphas
from espalier.supernets.gate_gradients import alpha_gradient
from espalier.supernets.gradient_strategy import softmax
from espalier.supernets.masked_adam import MaskedAdam
from espalier.supernets.proxyless import ProxylessNAS, keep_share
from espalier.supernets.selection.argmax import argmax
from espalier.supernets.strategy import Step
from espalier.supernets.trainer import SupernetTraining, train_supernet
from toy_space import ToyCell
from user_errors import user_error

TASK = Classification(10)
LOSSES = (1.0, 0.6, 1.2, 2.0)
COSTS_MS = (10.0, 20.0, 5.0, 0.0)


def nasbench201() -> NasBench201:
    torch.manual_seed(0)
    return NasBench201((1, 8, 8), 10, channels=4, cells=1)


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(8, 1, 8, 8, generator=generator), torch.randint(10, (8,), generator=generator))
        for _ in range(count)
    ]


def training(space: Any, strategy: ProxylessNAS, *, steps: int, epochs: int) -> SupernetTraining:
    return SupernetTraining(
        space,
        strategy,
        TrainSettings(epochs=epochs, lr=0.05),
        batches(steps),
        validation=batches(3),
        task=TASK,
        generator=torch.Generator(),
        seed=0,
    )


def bandit(tmp_path: Path, losses: Sequence[float] = LOSSES, blocks: int = 1, **options: Any) -> ProxylessNAS:
    torch.manual_seed(0)
    space = Bandit(losses, blocks)
    row = {f"op_{j}": cost for j, cost in enumerate(COSTS_MS)}
    costs = {name: row for name in space.choices()}
    cost_table(space, unit="ms", fixed=30, costs=costs, provenance={}, where="test").write(tmp_path / "costs.json")
    return ProxylessNAS(space, every=1, cost=str(tmp_path / "costs.json"), **options)


def probabilities(strategy: ProxylessNAS) -> list[float]:
    return strategy.preferences()["block_0"].tolist()


# What a step computes


def test_two_paths_share_what_they_had() -> None:
    """alpha = (1, 0, -1, .5), drawn {0, 2}, b = (3, -1), SGD of rate .1, then the offset -.0316."""
    alpha = torch.tensor([1, 0, -1, 0.5], dtype=torch.float64)
    space = Bandit(LOSSES)
    alphas = Alphas(space, std=0)
    alphas.values["block_0"] = nn.Parameter(alpha.clone())
    q = alphas.weights(Region.whole(space).restrict("block_0", (0, 2)), "block_0", softmax).detach()
    assert q[[0, 2]].tolist() == pytest.approx([0.880797, 0.119203], abs=1e-6)
    gradient = alpha_gradient(q, torch.tensor([3, 0, -1, 0], dtype=torch.float64))
    assert gradient.tolist() == pytest.approx([0.4199743, 0, -0.4199743, 0], abs=1e-7)
    moved = alpha - 0.1 * gradient
    unshifted = moved.clone()
    keep_share(moved, alpha, (0, 2))
    assert float(moved[0] - unshifted[0]) == pytest.approx(0.03160665, abs=1e-8)
    assert moved.tolist() == pytest.approx([0.9896092, 0, -0.9263959, 0.5], abs=1e-7)
    assert moved.softmax(0).tolist() == pytest.approx([0.4690912, 0.1743715, 0.0690473, 0.2874900], abs=1e-7)
    torch.testing.assert_close(moved.softmax(0)[[1, 3]], alpha.softmax(0)[[1, 3]], rtol=0, atol=1e-12)


def test_masked_adam_leaves_other_entries_alone_to_the_bit() -> None:
    """Plain Adam with momentum does not, even where the gradient is 0."""
    torch.manual_seed(0)
    vectors = [nn.Parameter(torch.randn(5)) for _ in range(2)]
    vectors[1].data.copy_(vectors[0])
    masked = MaskedAdam({"a": vectors[0]}, lr=0.1, betas=(0.5, 0.999))
    plain = torch.optim.Adam([vectors[1]], lr=0.1, betas=(0.5, 0.999))
    drifted = False
    for i in range(20):
        pair = sorted({i % 5, (2 * i + 1) % 5})
        others = [j for j in range(5) if j not in pair]
        before = [vector.detach().clone() for vector in vectors]
        gradient = torch.zeros(5).index_fill(0, torch.tensor(pair), 1.0 + i)
        masked.step({"a": gradient}, {"a": pair})
        vectors[1].grad = gradient
        plain.step()
        assert torch.equal(vectors[0][others], before[0][others])
        assert not torch.equal(vectors[0][pair], before[0][pair])
        drifted = drifted or not torch.equal(vectors[1][others], before[1][others])
    assert drifted


@pytest.mark.parametrize("paths", ["all", "two"])
def test_a_step_of_alpha_moves_what_it_looked_at(paths: Any, tmp_path: Path) -> None:
    strategy = bandit(tmp_path, blocks=3, paths=paths, loss="additive", target=80.0)
    for seed in range(20):
        before = strategy.alphas.state_dict()
        p = strategy.preferences()
        steps(strategy.space, strategy, 1, seed=seed)
        for name, alpha in strategy.alphas.values.items():
            moved = (alpha != before[name]).nonzero().flatten().tolist()
            assert len(moved) == (4 if paths == "all" else 2)
            rest = [j for j in range(4) if j not in moved]
            torch.testing.assert_close(strategy.preferences()[name][rest], p[name][rest], rtol=1e-6, atol=0)


def test_plain_cross_entropy_judges_alpha(tmp_path: Path) -> None:
    """Smoothing is for the weights: alpha is judged without it."""
    alphas = []
    for smoothing in (0.0, 0.3):
        strategy = bandit(tmp_path, alpha_lr=0.01)
        seen: list[Step] = []
        strategy.after_step, plain = seen.append, strategy.after_step  # type: ignore[method-assign, assignment]
        steps(strategy.space, strategy, 1)
        plain(dataclasses.replace(seen[0], task=Classification(2, label_smoothing=smoothing)))
        alphas.append(strategy.alphas.values["block_0"].detach())
    assert torch.equal(*alphas)


# What is drawn


def chi_square(counts: Sequence[int], p: Sequence[float]) -> float:
    expected = [sum(counts) * share for share in p]
    return sum((count - e) ** 2 / e for count, e in zip(counts, expected, strict=True))


def test_paths_are_drawn_from_softmax_of_alpha(tmp_path: Path) -> None:
    strategy = bandit(tmp_path)
    strategy.alphas.values["block_0"].data = torch.tensor([1.0, 0.0, -1.0, 0.5])
    p = probabilities(strategy)
    generator = torch.Generator().manual_seed(0)
    drawn = Counter(strategy.weight_gates(generator)["block_0"] for _ in range(20_000))
    assert chi_square([drawn[j] for j in range(4)], p) < 16.3  # the 99.9 % point with 3 degrees of freedom
    pairs = Counter(strategy._draw(strategy.region, 2, generator)["block_0"] for _ in range(20_000))
    assert all(a != b for a, b in pairs)
    every = [(a, b) for a in range(4) for b in range(4) if a != b]
    without_replacement = [p[a] * p[b] / (1 - p[a]) for a, b in every]
    assert chi_square([pairs[pair] for pair in every], without_replacement) < 31.3  # with 11
    pair_region = strategy.region.restrict("block_0", (0, 2))
    active = Counter(strategy._draw(pair_region, 1, generator)["block_0"] for _ in range(5_000))
    assert chi_square([active[(0,)], active[(2,)]], [0.880797, 0.119203]) < 10.8  # with 1


# When, and what is left alone


@pytest.mark.parametrize(("warmup", "epochs_that_learn"), [(1, [1, 2]), (0, [0, 1, 2])])
def test_schedule(warmup: int, epochs_that_learn: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 12 steps in an epoch the fifth and the tenth, and none during the warm-up."""
    space = nasbench201()
    strategy = ProxylessNAS(space, alpha_warmup=warmup)
    calls: list[tuple[int, int]] = []
    after_step = strategy.after_step

    def spy(step: Step) -> None:
        before = strategy.alphas.state_dict()
        after_step(step)
        if any(not torch.equal(before[name], alpha) for name, alpha in strategy.alphas.values.items()):
            calls.append((step.epoch, step.index))

    monkeypatch.setattr(strategy, "after_step", spy)
    train_supernet(training(space, strategy, steps=12, epochs=3))
    assert calls == [(epoch, index) for epoch in epochs_that_learn for index in (4, 9)]


def test_a_step_of_the_weights_touches_the_path_only() -> None:
    """Parameters, momentum and batch-norm buffers off the path keep their bits, also after a step of alpha."""
    space = nasbench201()
    strategy = ProxylessNAS(space, alpha_warmup=0, every=1)
    run = training(space, strategy, steps=1, epochs=9)
    gates: list[Any] = []
    draw = strategy.weight_gates
    strategy.weight_gates = lambda generator: gates.append(draw(generator)) or gates[-1]  # type: ignore
    for _ in range(5):
        state = {name: tensor.clone() for name, tensor in space.state_dict().items()}
        momenta = {id(p): s["momentum_buffer"].clone() for p, s in run.optimizer.state.items()}
        run.step(*batches(1)[0])
        names = {id(p): name for name, p in space.named_parameters()}
        changed = {name for name, tensor in space.state_dict().items() if not torch.equal(tensor, state[name])}
        changed |= {
            names[id(p)]
            for p, s in run.optimizer.state.items()
            if id(p) in momenta and not torch.equal(s["momentum_buffer"], momenta[id(p)])
        }
        active = {f"{edge}.candidates.{space.choices()[edge].options[o]}." for edge, o in gates[-1].items()}
        assert changed
        assert all("candidates" not in name or any(a in name for a in active) for name in changed)


@pytest.mark.parametrize("zero_active", ["paper", "skip"])
def test_zero_as_the_active_option(zero_active: Any) -> None:
    """`skip` leaves the choice alone, its cost included; `paper` defines the gradient of every option."""
    torch.manual_seed(0)
    space = MobileNet((1, 8, 8), 10, widths=(8,) * 9, cells=(2, 1, 1, 1, 1, 1), reductions=1)
    strategy = ProxylessNAS(
        space, zero_active=zero_active, alpha_warmup=0, every=1, loss="additive", target=1e5, cost_lambda=10
    )
    zero = "block_2"
    strategy.alphas.values[zero].data[6] = 8.0  # is drawn
    before = strategy.alphas.state_dict()
    training(space, strategy, steps=1, epochs=1).step(*batches(1)[0])
    moved = {name for name, alpha in strategy.alphas.values.items() if not torch.equal(alpha, before[name])}
    assert (zero in moved) == (zero_active == "paper")
    assert "block_1" in moved
    strategy.alphas.check_finite()


def test_numbers_of_an_epoch() -> None:
    space = nasbench201()
    cheap = 1.1 * macs_table(space).cheapest(Region.whole(space))
    strategy = ProxylessNAS(space, loss="target", target=cheap)
    rows = train_supernet(training(space, strategy, steps=5, epochs=2))
    uniform = rows[0]["expected_macs"]
    p = {name: torch.full((5,), 0.2) for name in space.choices()}
    assert uniform == pytest.approx(float(strategy.costs.expected(p)), rel=0.01)
    assert rows[-1]["chosen_macs"] == strategy.costs.cost(strategy.preferred()) <= cheap
    assert rows[0]["lambda"] == 0 < rows[1]["lambda"]


def test_the_chosen_network_computes_what_the_supernet_did() -> None:
    space = nasbench201()
    strategy = ProxylessNAS(space)
    train_supernet(training(space, strategy, steps=5, epochs=2))
    best = argmax(space, strategy.preferences(), strategy.region)
    (x, _), *_ = batches(1)
    for mode in (True, False):
        space.train(mode)
        built = space.build(best, weights="inherited")(x)
        torch.testing.assert_close(built, space(x, space.gates(best)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "key", "code", "says"),
    [
        ({"loss": "additive"}, "target", "missing", "macs"),
        ({"loss": "target", "target": 1.0}, "target", "infeasible", "cheapest"),
        ({"loss": "multiplicative", "target": 0.5}, "target", "out_of_range", "0.5"),
        ({"target": 1e6}, "loss", "conflict", "multiplicative"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], key: str, code: Any, says: str) -> None:
    with user_error(f"supernet.strategy.{key}", code, says=says):
        ProxylessNAS(ToyCell(), **options)


def test_a_table_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"nowhere\.json"):
        ProxylessNAS(ToyCell(), cost="nowhere.json")


def test_an_alpha_that_is_no_number_is_named() -> None:
    strategy = ProxylessNAS(ToyCell())
    strategy.alphas.values["edge_1"].data[0] = torch.nan
    with user_error("supernet.strategy.edge_1", "failed", says="nan"):
        strategy.end_epoch(0, 1)


# Where it goes


@pytest.mark.parametrize("paths", ["all", "two"])
def test_alpha_finds_the_best_option(paths: Any, tmp_path: Path) -> None:
    found = 0
    for seed in range(3):
        strategy = bandit(tmp_path, paths=paths, alpha_lr=0.05)
        steps(strategy.space, strategy, 150 if paths == "all" else 400, seed=seed)
        found += probabilities(strategy)[1] > 0.9
    assert found >= 2


def test_without_a_cost_equal_options_stay_equal(tmp_path: Path) -> None:
    strategy = bandit(tmp_path, losses=(1.0,) * 4)
    steps(strategy.space, strategy, 100)
    assert probabilities(strategy) == pytest.approx([0.25] * 4, abs=0.05)


def test_cost_decides_between_equal_options(tmp_path: Path) -> None:
    strategy = bandit(tmp_path, losses=(1.0,) * 4, loss="additive", target=40.0, alpha_lr=0.03)
    costs = [strategy.expected_cost()]
    for seed in range(10):
        steps(strategy.space, strategy, 30, seed=seed)
        costs.append(strategy.expected_cost())
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 31
    assert argmax(strategy.space, strategy.preferences(), strategy.region)["block_0"] == "op_3"


def test_a_dearer_cost_gives_a_cheaper_network(tmp_path: Path) -> None:
    chosen = []
    for weight in (0.0, 0.5, 2.0, 8.0):
        strategy = bandit(tmp_path, loss="additive", target=40.0, cost_lambda=weight, alpha_lr=0.03)
        steps(strategy.space, strategy, 120)
        chosen.append(strategy.costs.cost(argmax(strategy.space, strategy.preferences(), strategy.region)))
    assert chosen == sorted(chosen, reverse=True)
    assert chosen[0] == 50
    assert chosen[-1] == 30


@pytest.mark.slow
@pytest.mark.parametrize("paths", ["all", "two"])
@pytest.mark.parametrize("target", [60.0, 85.0])
def test_a_target_is_met(target: float, paths: Any, tmp_path: Path) -> None:
    """Four blocks cost 30 to 110 ms together; accuracy alone would take 110."""
    strategy = bandit(tmp_path, blocks=4, paths=paths, loss="target", target=target, alpha_lr=0.01)
    steps(strategy.space, strategy, 1500)
    assert strategy.expected_cost() == pytest.approx(target, rel=0.05)


def test_what_is_chosen_keeps_the_target(tmp_path: Path) -> None:
    """Undecided gates prefer the most expensive everywhere; the likeliest within the limit is taken instead."""
    strategy = bandit(tmp_path, blocks=4, loss="target", target=75.0)
    for alpha in strategy.alphas.parameters():
        alpha.data = torch.tensor([0.1, 0.3, 0.0, -0.1])
    assert strategy.costs.cost(argmax(strategy.space, strategy.preferences(), strategy.region)) > 75
    assert strategy.costs.cost(strategy.preferred()) <= 75


def test_what_is_chosen_costs_what_is_expected(tmp_path: Path) -> None:
    """p = (.1, .26, .24, .4) of (10, 20, 5, 0) ms: E = 30 + 4 * 7.4 = 59.6, but the likeliest of all costs 30.

    A reward for cost turns the blocks one after the other from op_3 to op_1, the likelier op_1 is there the sooner: one
    of them, 50 ms, and with two 70. What is left of 59.6 buys op_2, 5 ms for ln(.4 / .24), before it buys op_0.
    """
    strategy = bandit(tmp_path, blocks=4, loss="target", target=75.0)
    for i, alpha in enumerate(strategy.alphas.parameters()):
        alpha.data = torch.tensor([0.1, 0.26 + 0.001 * i, 0.24, 0.4]).log()
    assert strategy.costs.cost(argmax(strategy.space, strategy.preferences(), strategy.region)) == 30
    assert strategy.expected_cost() == pytest.approx(59.6, abs=0.1)
    assert sorted(strategy.preferred().values()) == ["op_1", "op_2", "op_3", "op_3"]
    assert strategy.preferred()["block_3"] == "op_1"


def test_what_is_chosen_is_dear_only_where_it_may_be(tmp_path: Path) -> None:
    """The target binds where more is expected; no option that is ruled out fills up what is left of it."""
    strategy = bandit(tmp_path, blocks=4, loss="target", target=75.0)
    for alpha in strategy.alphas.parameters():
        alpha.data = torch.tensor([0.0, 4.0, 0.0, 0.0])
    assert strategy.expected_cost() > 75
    assert strategy.costs.cost(strategy.preferred()) == 75
    for alpha in strategy.alphas.parameters():
        alpha.data = torch.tensor([9.0, 0.0, 0.0, 0.0])
    assert strategy.expected_cost() < 70 == strategy.costs.cost(strategy.preferred())
    for alpha in strategy.alphas.parameters():
        alpha.data = torch.tensor([0.0, 5.0, 0.0, 0.0])
    assert strategy.costs.cost(strategy.preferred()) == 70


def test_every_entry_has_an_adam_of_its_own() -> None:
    """An entry that is met late moves as it would alone, and none moves while it is left out."""
    generator = torch.Generator().manual_seed(0)
    ours = {"a": nn.Parameter(torch.zeros(4))}
    masked = MaskedAdam(ours, lr=0.1, betas=(0.0, 0.999))
    alone = [nn.Parameter(torch.zeros(1)) for _ in range(4)]
    adams = [torch.optim.Adam([entry], lr=0.1, betas=(0.0, 0.999)) for entry in alone]
    for number in range(120):
        g = torch.randn(4, generator=generator)
        entries = (0, 1) if number < 100 else (1, 3)
        masked.step({"a": g}, {"a": entries})
        for i in entries:
            alone[i].grad = g[i : i + 1].clone()
            adams[i].step()
    assert ours["a"].tolist() == pytest.approx([float(entry.detach()) for entry in alone], abs=1e-5)
    assert ours["a"][2] == 0


def test_a_table_of_other_sizes_is_refused(tmp_path: Path) -> None:
    macs_table(NasBench201((1, 8, 8), channels=4, cells=1)).write(tmp_path / "costs.json")
    for space in (NasBench201((1, 8, 8), channels=8, cells=1), NasBench201((1, 16, 16), channels=4, cells=1)):
        with pytest.raises(UserError, match=r"costs\.json: space"):
            ProxylessNAS(space, cost=str(tmp_path / "costs.json"))


def test_the_published_latencies_of_a_pixel_1_are_a_cost(shared_data: Path) -> None:
    """A target of the 80 ms of the paper; the space lies between 32.7 and 181 ms."""
    lut = shared_data / "pixel1_proxyless_lut.csv.gz"
    with torch.device("meta"):
        space = MobileNet()
    strategy = ProxylessNAS(space, cost=str(lut), loss="target", target=80.0)
    assert strategy.costs == pixel1_table(lut, space)
    with user_error("supernet.strategy.target", "infeasible", says="32.7"):
        ProxylessNAS(space, cost=str(lut), loss="target", target=29.0)
    with user_error("supernet.strategy.cost", "mismatch", says="ToyCell"):
        ProxylessNAS(ToyCell(), cost=str(lut))


def test_a_part_of_the_space_without_anything_so_cheap_is_named(tmp_path: Path) -> None:
    strategy = bandit(tmp_path, blocks=4, loss="target", target=75.0)
    for name in strategy.space.choices():
        strategy.region = strategy.region.decide(name, 1)
    with user_error("supernet.strategy.target", "infeasible", says="110"):
        strategy.preferred()


def test_a_schedule_in_which_alpha_never_learns_is_refused() -> None:
    space = nasbench201()
    with user_error("supernet.strategy.alpha_warmup", "conflict"):
        training(space, ProxylessNAS(space, alpha_warmup=2), steps=5, epochs=2)
    with user_error("supernet.strategy.every", "out_of_range", says="5 steps"):
        training(space, ProxylessNAS(space, every=9), steps=5, epochs=2)
