"""Importance sampling of images: its formulas, its draws, and that weighted losses estimate the mean loss."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from espalier.nas.data import Augment, Batches, Images, ImportanceSampler
from espalier.nas.data.importance import Average, Draws, average, effective_share, systematic
from espalier.nas.task import Classification
from user_errors import user_error


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def norms(task: Classification, z: Tensor, y: Tensor) -> Tensor:
    return task.residuals(z, y).norm(dim=1)


def targets(kind: str) -> Tensor:
    y = torch.randint(10, (20,), generator=seeded(1))
    return y if kind == "classes" else torch.rand(20, 10, generator=seeded(2)).softmax(1)


@pytest.mark.parametrize("kind", ["classes", "mixed"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_p1_the_score_is_the_norm_of_the_gradient_of_the_logits(kind: str, smoothing: float) -> None:
    """e_i = ||dL_i/dz_i|| = ||softmax(z_i) - t_i||, with whatever the targets are mixed and smoothed to."""
    task, y = Classification(10, smoothing), targets(kind)
    z = (3 * torch.randn(20, 10, generator=seeded())).requires_grad_()
    for i in range(20):
        (gradient,) = torch.autograd.grad(task.loss(z[i : i + 1], y[i : i + 1]), z)
        assert norms(task, z, y)[i].item() == pytest.approx(gradient[i].norm().item(), abs=1e-6)
    torch.testing.assert_close(task.losses(z, y).mean(), task.loss(z, y))


def test_p1_without_smoothing_it_is_softmax_minus_one_hot() -> None:
    z, y = 3 * torch.randn(20, 10, generator=seeded()), targets("classes")
    expected = (z.softmax(1) - F.one_hot(y, 10)).norm(dim=1)
    torch.testing.assert_close(norms(Classification(10), z, y), expected, rtol=0, atol=1e-6)


def test_p2_scores_of_known_logits() -> None:
    """sqrt(1 - 1/C) for uniform logits, 0 for what is certain and right, sqrt(2) for what is certain and wrong."""
    z = torch.zeros(3, 10)
    z[1, 4] = z[2, 5] = 20
    e = norms(Classification(10), z, torch.tensor([4, 4, 4]))
    assert e[0].item() == pytest.approx(math.sqrt(1 - 1 / 10), abs=1e-6)
    assert e[1].item() < 1e-3
    assert math.sqrt(2) - 1e-3 < e[2].item() < math.sqrt(2)


def test_p3_it_is_the_gradient_of_the_last_layer() -> None:
    """||dL_i/db|| = e_i and ||dL_i/dW|| = e_i ||h_i|| of a linear layer z = W h + b."""
    task, layer = Classification(5), nn.Linear(7, 5)
    h, y = torch.randn(6, 7, generator=seeded()), torch.randint(5, (6,), generator=seeded(1))
    e = norms(task, layer(h), y)
    for i in range(6):
        dw, db = torch.autograd.grad(task.loss(layer(h[i : i + 1]), y[i : i + 1]), [layer.weight, layer.bias])
        assert db.norm().item() == pytest.approx(e[i].item(), rel=1e-5)
        assert dw.norm().item() == pytest.approx((e[i] * h[i].norm()).item(), rel=1e-5)


def test_p4_the_score_by_probabilities() -> None:
    """e_i^2 = (1 - p_y)^2 + sum_{j != y} p_j^2."""
    z, y = torch.randn(20, 10, generator=seeded()), targets("classes")
    p = z.softmax(1)
    right = p.gather(1, y[:, None])[:, 0]
    expected = (1 - right) ** 2 + (p**2).sum(1) - right**2
    torch.testing.assert_close(norms(Classification(10), z, y) ** 2, expected)


def gradients() -> tuple[Tensor, Tensor]:
    """Six gradients and probabilities to draw them by."""
    g = torch.randn(6, 4, generator=seeded(), dtype=torch.float64) * torch.arange(1, 7, dtype=torch.float64)[:, None]
    return g, torch.rand(6, generator=seeded(1), dtype=torch.float64).softmax(0)


def variance(g: Tensor, p: Tensor) -> Tensor:
    """E ||d - mean g||^2 by enumeration of d_i = g_i / (N p_i); for p (..., N)."""
    d = g / (len(g) * p[..., None])
    return (p * ((d - g.mean(0)) ** 2).sum(-1)).sum(-1)


def test_p5_importance_weights_make_the_gradient_unbiased() -> None:
    """E[g_i / (N p_i)] = mean g for any p > 0."""
    g, p = gradients()
    mean = (p[:, None] * g / (len(g) * p[:, None])).sum(0)
    assert (mean - g.mean(0)).norm().item() < 1e-12


def test_p6_norms_are_the_best_probabilities() -> None:
    """Var = (1/N^2) sum ||g_i||^2 / p_i - ||mean g||^2, least at p* = ||g_i|| / sum_j ||g_j||."""
    g, p = gradients()
    size = g.norm(dim=1)
    formula = (size**2 / p).sum() / len(g) ** 2 - g.mean(0).norm() ** 2
    assert variance(g, p).item() == pytest.approx(formula.item(), rel=1e-12)
    best = variance(g, size / size.sum())
    assert best.item() == pytest.approx((size.mean() ** 2 - g.mean(0).norm() ** 2).item(), rel=1e-12)
    drawn = torch.rand(20_000, 6, generator=seeded(2), dtype=torch.float64)
    assert best < variance(g, drawn / drawn.sum(1, keepdim=True)).min()


def scored(scores: Tensor, tau: float, draws: Draws = "multinomial") -> ImportanceSampler:
    sampler = ImportanceSampler(draws=draws)
    sampler.load_state_dict({"scores": scores.double()})
    sampler.tau = tau
    return sampler


def test_p7_weighted_minibatches_have_the_gradient_of_the_mean_loss() -> None:
    """Over 2,000 draws the weighted gradient is within 4 standard errors of the full one, the unweighted outside."""
    torch.manual_seed(0)
    task, net = Classification(3), nn.Linear(5, 3)
    x, y = torch.randn(40, 5, generator=seeded()), torch.randint(3, (40,), generator=seeded(1))
    z = 3 * net(x)
    each = torch.stack([torch.autograd.grad(loss, net.weight, retain_graph=True)[0] for loss in task.losses(z, y)])
    sampler = scored(norms(task, z, y), tau=0.8)
    weighted, plain = [], []
    for seed in range(2_000):
        order = sampler.draw(40, 8, seeded(seed))
        w = sampler.observe(torch.ones(8))
        assert w is not None
        weighted.append((w[:, None, None] * each[order]).mean(0))
        plain.append(each[order].mean(0))

    def far(estimates: list[Tensor]) -> float:
        stacked = torch.stack(estimates)
        return ((stacked.mean(0) - each.mean(0)) / (stacked.std(0) / len(stacked) ** 0.5)).abs().max().item()

    assert far(weighted) < 4 < far(plain)


@pytest.mark.parametrize("tau", [0.0, 0.3, 0.8, 1.0])
def test_p8_probabilities_mix_scores_with_the_uniform(tau: float) -> None:
    """q_i = tau h_i / sum h + (1 - tau) / N."""
    h = torch.rand(50, generator=seeded()).double()
    q = scored(h, tau).probabilities(50)
    if tau == 0:
        assert q is None
        return
    assert q is not None
    assert q.sum().item() == pytest.approx(1, abs=1e-12)
    assert q.min().item() >= (1 - tau) / 50
    if tau == 1:
        torch.testing.assert_close(q, h / h.sum(), rtol=1e-14, atol=0)


def test_unknown_scores_count_as_the_mean_of_the_known() -> None:
    q = scored(torch.tensor([1.0, torch.nan, 3.0]), 1.0).probabilities(3)
    assert q is not None and q.tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])


@pytest.mark.parametrize(("by", "expected"), [("half", [0.4, 0.7, 0.5]), ("mean", [0.4, 0.6, 0.5])])
def test_p11_several_scores_of_one_image(by: Average, expected: list[float]) -> None:
    """.2, .6 make .4 by halves; .2, .6, 1.0 make .7, and .6 as a mean. Other images come in between."""
    indices = torch.tensor([0, 1, 1, 3, 0, 1])
    values = torch.tensor([0.2, 0.2, 0.6, 0.5, 0.6, 1.0], dtype=torch.float64)
    got = average(indices, values, 4, by=by)
    assert got[[0, 1, 3]].tolist() == pytest.approx(expected, abs=1e-15)
    assert got[2].isnan()


@pytest.mark.parametrize(("carry", "expected"), [(True, 0.7), (False, 0.0)])
def test_p12_an_image_not_drawn_keeps_its_score_or_loses_it(carry: bool, expected: float) -> None:
    sampler = ImportanceSampler(carry=carry)
    sampler.load_state_dict({"scores": torch.tensor([0.7, 0.7, 0.7], dtype=torch.float64)})
    order = sampler.draw(3, 2, seeded())
    sampler.observe(torch.tensor([0.25, 0.5]))
    sampler.end_epoch()
    assert sampler.scores is not None
    assert sampler.scores[order].tolist() == [0.25, 0.5]
    left = ({0, 1, 2} - set(order.tolist())).pop()
    assert sampler.scores[left].item() == expected


@pytest.mark.parametrize(
    ("carry", "expected"),
    [(False, {1: 0.63, 100: 0.60, 200: 0.48, 240: 0.33, 249: 0.26}), (True, {1: 0.63, 100: 0.63, 249: 0.59})],
)
def test_p12_coverage_decays_where_undrawn_images_lose_their_scores(carry: bool, expected: dict[int, float]) -> None:
    """The share of images seen in each of 250 epochs, tau = e / E; all true scores between .1 and 1."""
    sampler, generator = ImportanceSampler(draws="multinomial", carry=carry), seeded()
    true = 0.1 + 0.9 * torch.rand(2_000, generator=generator)
    unique = []
    for epoch in range(250):
        sampler.tau = epoch / 250
        sampler.observe(true[sampler.draw(2_000, 2_000, generator)])
        unique.append(sampler.end_epoch().unique)
    assert unique[0] == 1
    assert {epoch: unique[epoch] for epoch in expected} == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("draws", ["multinomial", "systematic"])
def test_p13_what_batches_show_follows_q(draws: Draws) -> None:
    """Chi-square of 1e5 drawn images against q, below its 99.9 % point with 39 degrees of freedom."""
    images = numbered(40)
    generator = seeded()
    sampler = scored(torch.rand(40, generator=generator), 0.8, draws)
    batches = Batches(images, 40, mean=(0,), std=(1,), shuffle=True, generator=generator)
    batches.follow(sampler)
    q = sampler.probabilities(40)
    assert q is not None
    shown = torch.zeros(40, dtype=torch.float64)
    for _ in range(2_500):
        for x, y in batches:
            assert torch.equal((255 * x[:, 0, 0, 0]).round().long(), y)
            shown += y.bincount(minlength=40)
    assert shown.sum() == 1e5
    assert ((shown - 1e5 * q) ** 2 / (1e5 * q)).sum().item() < 72.1


def numbered(count: int) -> Images:
    """Images of which the first pixel and the class are the image's own number."""
    pixels = torch.zeros(count, 1, 4, 4, dtype=torch.uint8)
    pixels[:, 0, 0, 0] = torch.arange(count)
    return Images(pixels, torch.arange(count), tuple(str(i) for i in range(count)), "numbers")


def test_systematic_draws_miss_the_expected_number_by_less_than_one() -> None:
    q = torch.rand(100, generator=seeded(), dtype=torch.float64)
    q /= q.sum()
    for seed in range(20):
        counts = systematic(q, 250, seeded(seed)).bincount(minlength=100)
        assert counts.sum() == 250
        assert bool(((counts - 250 * q).abs() < 1).all())


def test_systematic_draws_come_in_random_order() -> None:
    order = systematic(torch.full((50,), 1 / 50, dtype=torch.float64), 50, seeded())
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() != list(range(50))


def test_without_scores_every_image_comes_once_as_if_it_were_shuffled() -> None:
    """The same order as a shuffle's, from the same state of the generator, which is then the same too."""
    augment = Augment(crop_padding=1, flip=True)
    states, shown = [], []
    for follows in (False, True):
        generator = seeded()
        options = {"shuffle": True, "augment": augment, "generator": generator, "drop_last": True}
        batches = Batches(numbered(37), 10, mean=(0,), std=(1,), **options)  # type: ignore[arg-type]
        if follows:
            batches.follow(ImportanceSampler())
        shown.append(torch.cat([x for x, _ in batches]))
        states.append(generator.get_state())
    assert torch.equal(*shown)
    assert torch.equal(*states)


@pytest.mark.parametrize("draws", ["multinomial", "systematic"])
def test_it_resumes_exactly(draws: Draws) -> None:
    def epoch(sampler: ImportanceSampler, generator: Generator) -> tuple[Tensor, Tensor]:
        order = sampler.draw(30, 24, generator)
        halves = [sampler.observe(order[start : start + 12] + 1.0) for start in (0, 12)]
        sampler.end_epoch()
        return order, torch.cat([torch.ones(12) if w is None else w for w in halves])

    generator, whole = seeded(), ImportanceSampler(draws=draws)
    whole.tau = 0.7
    for _ in range(2):
        epoch(whole, generator)
    resumed = ImportanceSampler(draws=draws)
    resumed.tau = 0.7
    resumed.load_state_dict(whole.state_dict())
    after = Generator()
    after.set_state(generator.get_state())
    for got, expected in zip(epoch(resumed, after), epoch(whole, generator), strict=True):
        assert torch.equal(got, expected)


def test_weights_are_those_of_the_images_of_each_batch() -> None:
    sampler = scored(torch.tensor([1.0, 2.0, 3.0, 4.0]), 1.0)
    order = sampler.draw(4, 6, seeded())
    got = [sampler.observe(torch.ones(n)) for n in (4, 2)]
    assert all(w is not None and w.dtype == torch.float32 for w in got)
    expected = 10 / (4 * (order + 1.0))  # 1 / (N q_i), q_i = h_i / 10
    torch.testing.assert_close(torch.cat([w for w in got if w is not None]), expected)


def test_effective_share() -> None:
    assert effective_share(None) == 1
    assert effective_share(torch.tensor([1.0, 1.0, 2.0])) == pytest.approx(16 / (3 * 6))


def test_scores_of_other_images_are_refused() -> None:
    with user_error("checkpoint.scores", "mismatch", says="40 scores"):
        scored(torch.rand(40), 0.5).draw(41, 41, seeded())


def test_an_epoch_that_was_not_observed_whole_makes_no_scores() -> None:
    sampler = ImportanceSampler()
    sampler.draw(10, 10, seeded())
    sampler.observe(torch.ones(5))
    with pytest.raises(RuntimeError, match="5 scores were observed for the 10 images"):
        sampler.end_epoch()


def test_an_order_needs_a_generator() -> None:
    with pytest.raises(ValueError, match="needs a generator"):
        Batches(numbered(4), 2, mean=(0,), std=(1,)).follow(ImportanceSampler())
