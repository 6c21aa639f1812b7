"""AZ-NAS: three scores of the blocks of a network; the fourth proxy is its number of operations.

Lee & Ham, "AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search", CVPR 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from espalier.predictors.zero_cost.blocks import run_blocks
from espalier.predictors.zero_cost.initialisation import kaiming_
from espalier.predictors.zero_cost.network import ScoreError
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score


class AZExpressivity(Score):
    """Σ_l H_l over the blocks l: in how many directions do their features vary? See `BlockPass`."""

    name = "az_expressivity"
    needs = frozenset({"activations"})
    batch_norm = "batch"

    def compute(self, probe: Probe) -> float:
        return sum(_at_least_two_blocks(probe, self.name).entropies)


class AZProgressivity(Score):
    """min_l (H_{l+1} - H_l) over the blocks l: does every block add directions? See `BlockPass`."""

    name = "az_progressivity"
    needs = frozenset({"activations"})
    batch_norm = "batch"

    def compute(self, probe: Probe) -> float:
        h = torch.tensor(_at_least_two_blocks(probe, self.name).entropies, dtype=torch.float64)
        return float(h.diff().min())


class AZTrainability(Score):
    """mean_l (-s_l - 1 / (s_l + 1e-6) + 2) over the blocks l from the second: do gradients keep their size?

    At most 0, where all s_l are 1. See `BlockPass`.
    """

    name = "az_trainability"
    needs = frozenset({"activations"})
    batch_norm = "batch"

    def compute(self, probe: Probe) -> float:
        terms = _at_least_two_blocks(probe, self.name).trainabilities
        return sum(terms) / len(terms)


class BlockPass:
    """A batch of noise through the network, block by block, with fresh weights N(0, 2/fan_in).

    The batch has the shape of the images and is drawn from N(0, 1); batch norm is by its statistics. The blocks are
    those of `block_ends`; the authors take the cells of the search space.

    Attributes:
        entropies: H_l of each block, see `entropy`.
        trainabilities: -s_l - 1 / (s_l + 1e-6) + 2 of each block but the first, see `trainability`.
    """

    def __init__(self, probe: Probe) -> None:
        model = probe.network()
        kaiming_(model, "fan_in")
        self.entropies: list[float] = []
        self.trainabilities: list[float] = []
        run_blocks(model.requires_grad_(False), torch.randn_like(probe.x), self._see)
        if not self.entropies:
            raise ScoreError("network", "it has no block: no convolution puts out maps that the logits depend on")

    def _see(self, x: Tensor, features: Tensor) -> None:
        if self.entropies:
            g_out = torch.randint(2, features.shape, device=features.device) * 2.0 - 1
            self.trainabilities.append(trainability(_vjp(features, x, g_out), g_out))
        self.entropies.append(entropy(features.detach()))


def entropy(features: Tensor) -> float:
    """H = -Σ_i p_i log(p_i + 1e-8), p = λ / Σλ, λ the eigenvalues of the channels' covariance.

    At most log C; nan where nothing varies, or is not finite.

    Args:
        features: `(n, C, h, w)`; every position of every image is a sample.
    """
    samples = features.transpose(0, 1).flatten(1)
    covariance = torch.cov(samples, correction=0).reshape(len(samples), len(samples)).double()
    if not bool(covariance.isfinite().all()):
        return float("nan")
    eigenvalues = torch.linalg.eigvalsh(covariance).clamp(min=0)
    p = eigenvalues / eigenvalues.sum()
    return float(-(p * (p + 1e-8).log()).sum())


def trainability(g_in: Tensor, g_out: Tensor) -> float:
    """-s - 1 / (s + 1e-6) + 2, s the largest singular value of M = mean over positions of g_in g_outᵀ.

    M is what the block's Jacobian does to gradients, for g_out of random signs. Where the block makes the maps smaller,
    a position of g_in is all the pixels above one of g_out, side by side as channels. -inf for a block that passes all
    gradients as they are, so has nothing to train.

    Args:
        g_out: `(n, channels, height, width)`, the gradient at the block's output.
        g_in: the same at its input.
    """
    if torch.equal(g_in, g_out):
        return float("-inf")
    n, _, height, width = g_out.shape
    rows, columns = max(1, round(g_in.shape[2] / height)), max(1, round(g_in.shape[3] / width))
    # An odd size halved is rounded up, so the last pixels may be missing; without padding some are left over.
    g_in = F.pad(g_in, (0, columns * width - g_in.shape[3], 0, rows * height - g_in.shape[2]))
    pixels = g_in.unflatten(3, (width, columns)).unflatten(2, (height, rows))
    m = torch.einsum("nchawb,nohw->cabo", pixels, g_out).flatten(0, 2) / (n * height * width)
    if not bool(m.isfinite().all()):
        return float("nan")
    s = float(torch.linalg.matrix_norm(m, 2))
    return -s - 1 / (s + 1e-6) + 2


def _vjp(output: Tensor, x: Tensor, g_out: Tensor) -> Tensor:
    if not output.requires_grad:  # nothing of x arrives
        return torch.zeros_like(x)
    (g_in,) = torch.autograd.grad(output, x, g_out, allow_unused=True, materialize_grads=True)
    return g_in


def _at_least_two_blocks(probe: Probe, name: str) -> BlockPass:
    blocks = probe.once(BlockPass)
    if len(blocks.entropies) < 2:
        raise ScoreError("network", f"{name} compares blocks, and the network has only one")
    return blocks
