"""The cost in the loss of the architecture parameters, on the numbers of a small table: F = (10, 20, 0), 30 fixed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from bandit import Bandit

from espalier.nas.cost.table import cost_table
from espalier.nas.region import Region
from espalier.supernets.cost_loss import AdditiveLoss, CostLoss, MultiplicativeLoss, TargetLoss, cost_loss
from user_errors import user_error

F = torch.tensor([10.0, 20.0, 0.0], dtype=torch.float64)


@pytest.mark.parametrize(
    ("loss", "value", "slope"),
    [
        (MultiplicativeLoss(80, alpha=0.2, beta=0.3), 0.379861979, 0.002574372),
        (AdditiveLoss(80, weight=0.1), 1.95, 0.00416667),
    ],
)
def test_both_published_forms(loss: CostLoss, value: float, slope: float) -> None:
    """E = 40 at alpha = 0, CE = 2, reference 80; dE/dalpha_j = p_j (F_j - sum_k p_k F_k)."""
    alpha = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    result = loss(torch.tensor(2.0, dtype=torch.float64), 30 + alpha.softmax(0) @ F)
    result.backward()
    assert float(result.detach()) == pytest.approx(value, abs=1e-8)
    assert alpha.grad is not None
    assert alpha.grad.tolist() == pytest.approx([0, slope, -slope], abs=1e-8)


def test_slopes_at_the_uniform_cost_of_the_mobile_space() -> None:
    """E = 114 ms, CE = 2, reference 80: relative to the gradient of CE the forms weigh a millisecond alike."""
    ce = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    expected = torch.tensor(114.0, dtype=torch.float64, requires_grad=True)
    by_ce, by_cost = torch.autograd.grad(MultiplicativeLoss(80)(ce, expected), [ce, expected])
    assert float(by_ce) == pytest.approx(0.2047, abs=5e-5)
    assert float(by_cost) == pytest.approx(2.275e-4, abs=5e-8)
    (by_cost,) = torch.autograd.grad(AdditiveLoss(80)(ce, expected), [expected])
    assert float(by_cost) == pytest.approx(1.25e-3)


@pytest.mark.parametrize("loss", [MultiplicativeLoss(80), AdditiveLoss(80)])
@pytest.mark.parametrize("cost", [1.5, 40.0, 400.0])
def test_more_cost_is_more_loss(loss: CostLoss, cost: float) -> None:
    expected = torch.tensor(cost, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(torch.tensor(2.0), expected), [expected])
    assert float(slope) > 0


BANDIT = Bandit((1.0, 0.6))
WHOLE = Region.whole(BANDIT)
SECONDS = cost_table(
    BANDIT, unit="ms", fixed=0.03, costs={"block_0": {"op_0": 0.01, "op_1": 0.02}}, provenance={}, where="test"
)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MultiplicativeLoss(1.0),
        lambda: MultiplicativeLoss(0.08),
        lambda: cost_loss("multiplicative", SECONDS, WHOLE, 80, alpha=0.2, beta=0.3, weight=0.1, rate=0.1),
    ],
)
def test_logarithms_need_costs_above_one(make: Callable[[], object]) -> None:
    """Milliseconds given as seconds would make the base of the power negative."""
    with user_error("supernet.strategy.target", "out_of_range"):
        make()


@pytest.mark.parametrize(
    ("make", "shares"),
    [
        (MultiplicativeLoss, {40.0: 0.9490755, 80.0: 0.9490755, 1000.0: 0.9490755}),
        (AdditiveLoss, {40.0: 0.94740685, 80.0: 0.94778958, 1000.0: 0.94806877}),
    ],
)
def test_a_reference_is_no_target(make: Callable[[float], CostLoss], shares: dict[float, float]) -> None:
    """The share of the best option after 300 steps of Adam: the reference, which Adam hardly sees, does not steer E."""
    losses = torch.tensor([1.0, 0.6, 1.2, 2.0], dtype=torch.float64)
    costs = torch.tensor([10.0, 20.0, 5.0, 0.0], dtype=torch.float64)
    for reference, share in shares.items():
        loss = make(reference)
        alpha = torch.zeros(4, dtype=torch.float64, requires_grad=True)
        adam = torch.optim.Adam([alpha], lr=0.01, betas=(0.0, 0.999))
        for _ in range(300):
            p = alpha.softmax(0)
            (alpha.grad,) = torch.autograd.grad(loss(p @ losses, 30 + p @ costs), [alpha])
            adam.step()
        assert float(alpha.detach().softmax(0)[1]) == pytest.approx(share, abs=5e-8)


def test_the_multiplier_follows_the_constraint() -> None:
    """lambda <- max(0, lambda + eta (E / target - 1)); L = CE + (max(0, lambda + c)^2 - lambda^2) / 2."""
    loss = TargetLoss(80, cheapest=30, rate=0.5)
    loss.observe(120, progress=0.8)
    assert loss.multiplier == pytest.approx(0.25)
    expected = torch.tensor(100.0, requires_grad=True)
    value = loss(torch.tensor(2.0), expected)
    assert float(value.detach()) == pytest.approx(2 + (0.5**2 - 0.25**2) / 2)
    (slope,) = torch.autograd.grad(value, [expected])
    assert float(slope) == pytest.approx((0.25 + 0.25) / 80)
    again = TargetLoss(80, cheapest=30)
    again.load_state_dict(loss.state_dict())
    assert again.multiplier == loss.multiplier
    loss.observe(8, progress=0.9)
    assert loss.multiplier == 0.0


def test_the_limit_falls_in_a_line_to_the_target() -> None:
    """From the first E of 120 at .3 of the training to 80 at .7: 100 half-way, and 80 from there on."""
    loss = TargetLoss(80, cheapest=30)
    for progress, limit in ((0.3, 120), (0.5, 100), (0.7, 80), (0.9, 80)):
        loss.observe(120, progress=progress)
        assert loss.limit == pytest.approx(limit)
    again = TargetLoss(80, cheapest=30)
    again.load_state_dict(loss.state_dict())
    assert again.row() == loss.row()


def test_a_target_below_the_cheapest_is_refused() -> None:
    with user_error("supernet.strategy.target", "infeasible", says="29.6"):
        TargetLoss(25, cheapest=29.6)
