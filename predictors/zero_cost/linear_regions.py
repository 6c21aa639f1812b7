"""Linear regions: into how many pieces do the ReLUs cut the input space?"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from espalier.predictors.zero_cost.initialisation import kaiming_
from espalier.predictors.zero_cost.network import ScoreError
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.relu_codes import CodeKernel
from espalier.predictors.zero_cost.score import Score

SIZE = 8
WALKS = 8
POINTS = 32


class LinearRegions(Score):
    """Σ_k R_k, R_k the number of linear regions met on walk k: of different ReLU codes among its 32 points.

    The expressivity half of TE-NAS (Chen et al., ICLR 2021). The authors count the codes of random inputs to a copy of
    the network with one channel and images of 3x3; a network of any usual width has a code of its own for every such
    input, so their count would be the number of inputs. We leave the network as it is, and walk: walk k (0 to 7) goes
    from image k of the batch towards the next one (after the last comes the first), 4^-k of the way. At k = 0 the
    steps are so long that each one ends in another region, at k = 7 so short that few do; how many walks lie between
    tells how close the regions are. From 8 to 256.

    The images are averaged down to 8x8 for a network that takes them so small. Fresh weights N(0, 2/fan_in), in
    float64, as the shortest steps are 1e-6 of the distance of two images. Batch norm is by the statistics of the batch
    of images, the same for all points.
    """

    name = "linear_regions"
    needs = frozenset({"images", "activations"})
    batch_norm = "batch"

    def compute(self, probe: Probe) -> float:
        if len(probe.x) < 2:
            raise ScoreError("images", "linear_regions walks from image to image and needs at least 2", code="too_few")
        model = probe.network().double()
        kaiming_(model, "fan_in")
        with torch.no_grad():
            x = downscaled(model, probe.x.double())
            fix_statistics(model, x)
            return float(sum(count_regions(_kernel(model, points)) for points in walks(x)))


def downscaled(model: nn.Module, x: Tensor) -> Tensor:
    """The images averaged down to at most 8x8, or as they are if the network does not take smaller ones."""
    averaged = F.adaptive_avg_pool2d(x, (min(x.shape[2], SIZE), min(x.shape[3], SIZE)))
    try:
        model(averaged[:2])
    except (RuntimeError, ValueError, AssertionError):  # what is wrong with the network itself comes again
        return x
    return averaged


def walks(x: Tensor) -> Iterator[Tensor]:
    """The points `(32, ...)` of each walk among images `(n, ...)`."""
    for k in range(WALKS):
        start, end = x[k % len(x)], x[(k + 1) % len(x)]
        t = torch.linspace(0, 4.0**-k, POINTS, dtype=x.dtype, device=x.device)
        yield start + t.view(-1, *[1] * start.ndim) * (end - start)


def count_regions(kernel: Tensor) -> int:
    """The number of different rows among codes, from their `code_kernel` `(points, points)`."""
    equal = kernel == kernel.diagonal()  # all units agree
    return int((~equal.tril(-1).any(1)).sum())


def fix_statistics(model: nn.Module, x: Tensor) -> None:
    """Puts the network into evaluation mode, its batch norms with the statistics of the batch `x`."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            zeros = torch.zeros(module.num_features, dtype=x.dtype, device=x.device)
            module.running_mean, module.running_var = zeros, torch.ones_like(zeros)
            module.track_running_stats, module.momentum = True, 1.0
    model.train()
    model(x)
    model.eval()


def _kernel(model: nn.Module, points: Tensor) -> Tensor:
    with CodeKernel(len(points)) as seen:
        model(points)
    if seen.kernel is None:
        raise ScoreError("network", "linear_regions needs ReLUs, and the network has none")
    return seen.kernel
