"""AZ-NAS against features and gradients whose spectra are known."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from espalier.predictors.zero_cost.az_nas import (
    AZExpressivity,
    AZProgressivity,
    AZTrainability,
    BlockPass,
    entropy,
    trainability,
)
from espalier.predictors.zero_cost.network import ScoreError
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score
from user_errors import user_error

SIGNS = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)))  # all g of three channels: mean g gᵀ = 1


def maps(samples: Tensor) -> Tensor:
    """`(samples, channels)` as `(n, channels, 1, 2)`: half the samples are images, half positions."""
    return samples.unflatten(0, (-1, 2)).transpose(1, 2).unsqueeze(2)


def test_features_that_vary_alike_in_all_directions_have_the_entropy_log_c() -> None:
    assert entropy(maps(SIGNS)) == pytest.approx(math.log(3), abs=1e-6)
    assert entropy(maps(SIGNS * 7 + 100)) == pytest.approx(math.log(3), abs=1e-6)  # neither scale nor mean counts


def test_entropy_by_hand() -> None:
    features = maps(SIGNS * torch.tensor([1.0, math.sqrt(3), 0]))  # λ = 0, 1, 3
    expected = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    assert entropy(features) == pytest.approx(expected, abs=1e-6)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    turned = torch.einsum("dc,nchw->ndhw", rotation, features)
    assert entropy(turned) == pytest.approx(expected, abs=1e-5)


def test_one_channel_has_no_entropy_and_constant_features_have_none_at_all() -> None:
    assert entropy(maps(SIGNS[:, :1])) == pytest.approx(0, abs=1e-7)
    assert math.isnan(entropy(torch.ones(4, 3, 2, 2)))
    assert math.isnan(entropy(torch.full((4, 3, 2, 2), torch.inf)))


@pytest.mark.parametrize("s", [0.25, 1.5, 3.0])
def test_a_block_that_scales_gradients(s: float) -> None:
    g_out = maps(SIGNS)
    assert trainability(s * g_out, g_out) == pytest.approx(-s - 1 / s + 2, rel=1e-4)


def test_a_block_that_turns_gradients_is_best_and_one_that_passes_them_worst() -> None:
    g_out = maps(SIGNS)
    assert trainability(g_out.flip(1), g_out) == pytest.approx(0, abs=1e-5)
    assert trainability(g_out.clone(), g_out) == -math.inf
    assert trainability(torch.zeros_like(g_out), g_out) == pytest.approx(2 - 1e6)
    assert math.isnan(trainability(g_out * torch.inf, g_out))


def test_only_the_largest_singular_value_counts() -> None:
    g_out = maps(SIGNS)
    g_in = g_out * torch.tensor([0.1, 2, 1])[:, None, None]
    assert trainability(g_in, g_out) == pytest.approx(-2 - 0.5 + 2, rel=1e-5)


def test_pixels_of_a_block_with_stride_are_channels() -> None:
    # g_in is 3 times g_out on one of the four pixels above a position, 4 times on another
    g_out = maps(SIGNS)
    g_in = torch.zeros(4, 3, 2, 4)
    g_in[:, :, 0, 0::2], g_in[:, :, 1, 1::2] = 3 * g_out[:, :, 0], 4 * g_out[:, :, 0]
    assert trainability(g_in, g_out) == pytest.approx(-5 - 0.2 + 2, rel=1e-5)
    rows = F.pixel_unshuffle(g_in, 2)
    m = torch.einsum("nchw,nohw->co", rows, g_out) / 8
    assert float(torch.linalg.svdvals(m)[0]) == pytest.approx(5, rel=1e-6)


def test_sizes_that_do_not_divide() -> None:
    g_out = maps(SIGNS)
    g_in = torch.zeros(4, 3, 1, 3)  # 3 pixels halved are 2: the last one has no partner
    g_in[:, :, :, 0::2] = 2 * g_out
    assert trainability(g_in, g_out) == pytest.approx(-2 - 0.5 + 2, rel=1e-5)
    in_a_row = SIGNS.T[None, :, None, :]
    wider = F.pad(2 * in_a_row, (0, 1), value=9.0)  # 9 pixels by an unpadded kernel are 8: the last is left out
    assert trainability(wider, in_a_row) == pytest.approx(-2 - 0.5 + 2, rel=1e-5)


def network(blocks: int) -> nn.Module:
    convolutions = [nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1) for i in range(blocks)]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(8 * 16, 2))


def test_the_scores_are_of_one_pass() -> None:
    probe = Probe(network(4), torch.zeros(6, 3, 4, 4), torch.zeros(6, dtype=torch.int64))
    blocks = probe.once(BlockPass)
    h = blocks.entropies
    assert len(h) == 4
    assert len(blocks.trainabilities) == 3
    assert AZExpressivity().of(probe) == pytest.approx(sum(h))
    assert AZProgressivity().of(probe) == pytest.approx(min(h[1] - h[0], h[2] - h[1], h[3] - h[2]))
    assert AZTrainability().of(probe) == pytest.approx(sum(blocks.trainabilities) / 3)
    assert all(0 < entropy <= math.log(8) for entropy in h)
    assert all(term <= 0 for term in blocks.trainabilities)


def test_the_initial_weights_and_the_images_are_not_read() -> None:
    model = network(3)
    first = AZExpressivity()(model, torch.randn(6, 3, 4, 4), torch.zeros(6, dtype=torch.int64))
    nn.init.zeros_(model[1].weight)  # type: ignore[index,arg-type]
    assert AZExpressivity()(model, torch.full((6, 3, 4, 4), torch.nan), torch.zeros(6, dtype=torch.int64)) == first


@pytest.mark.parametrize("score", [AZExpressivity(), AZProgressivity(), AZTrainability()], ids=lambda score: score.name)
def test_one_block_cannot_be_compared(score: Score) -> None:
    x, y = torch.randn(6, 3, 4, 4), torch.zeros(6, dtype=torch.int64)
    with user_error("network", "unsupported", says=score.name):
        score(network(1), x, y)


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(ScoreError, match=r"^network: it has no block"):
        AZExpressivity()(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), torch.randn(6, 3, 4, 4), torch.zeros(6).long())
