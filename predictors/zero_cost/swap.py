"""SWAP: how many different ways are there to tell the images apart?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from espalier.nas.errors import UserError
from espalier.predictors.zero_cost.initialisation import gaussian_
from espalier.predictors.zero_cost.network import ScoreError, logits
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.relu_codes import ReluInputs
from espalier.predictors.zero_cost.score import Score

IMAGES = 16


class SWAP(Score):
    """The number of different columns of the codes 1[z > 0] `(n, units)` of all ReLUs together: at most 2^n.

    A column is the pattern over the images in which one unit is on. Only ReLUs with maps `(n, c, h, w)` count, the
    images are the first 16 of the batch, and all weights are drawn from N(0, 1). Peng et al., "SWAP-NAS: Sample-Wise
    Activation Patterns for Ultra-fast NAS", ICLR 2024, which averages 32 draws; this is one, to be averaged by repeats.

    With few images any network has all 2^n patterns, and the score tells nothing.
    """

    name = "swap"
    needs = frozenset({"images", "activations"})
    batch_norm = "batch"

    def compute(self, probe: Probe) -> float:
        return float(probe.once(count_patterns))


class RegularisedSWAP(Score):
    """SWAP · exp(-(Θ - μ)² / σ), Θ the network's parameters in thousands; see `SWAP`.

    The paper prefers networks of the wanted size μ in this way, with μ and σ chosen for each search space. The
    factor falls to 0 for a network far from μ, so the two must fit the space.

    Args:
        mu: μ, the size wanted, in thousands of parameters.
        sigma: σ, in thousands squared: at a distance of √σ from μ the factor is 1/e. The defaults are ours, to suit
            NAS-Bench-201, whose largest network has 1532 thousand.

    Raises:
        UserError: σ is not positive.
    """

    name = "swap_reg"
    needs = frozenset({"images", "activations"})
    batch_norm = "batch"

    def __init__(self, mu: float = 1500.0, sigma: float = 1e6) -> None:
        if not sigma > 0:
            raise UserError("sigma", f"must be above 0, not {sigma}", code="out_of_range")
        self.mu, self.sigma = mu, sigma

    def compute(self, probe: Probe) -> float:
        theta = probe.parameters / 1e3
        return probe.once(count_patterns) * math.exp(-((theta - self.mu) ** 2) / self.sigma)


class PatternCounter(ReluInputs):
    """Counts the different patterns over n images of the units of all ReLUs with maps executed inside the block.

    Args:
        images: n, at most 16.
        device: where the maps are.
    """

    def __init__(self, images: int, device: torch.device) -> None:
        super().__init__(images)
        self._powers = 2.0 ** torch.arange(images, device=device)
        self._seen = torch.zeros(2**images, dtype=torch.bool, device=device)

    @property
    def count(self) -> int:
        return int(self._seen.sum())

    def see(self, z: Tensor) -> None:
        if z.ndim == 4:
            pattern = self._powers @ (z.flatten(1) > 0).float()  # as a binary number, exact in float32
            self._seen[pattern.long()] = True


def count_patterns(probe: Probe) -> int:
    """The score before regularisation.

    Raises:
        ScoreError: there is no ReLU with a map.
    """
    model, x = probe.network(), probe.x[:IMAGES]
    gaussian_(model)
    with torch.no_grad(), PatternCounter(len(x), probe.device) as patterns:
        logits(model(x), len(x))
    if patterns.count == 0:
        raise ScoreError(
            "network", "swap needs ReLUs of maps (images, channels, height, width), and the network has none"
        )
    return patterns.count
