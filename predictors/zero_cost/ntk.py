"""NTK condition number: does gradient descent learn all directions at about the same speed?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from espalier.predictors.zero_cost.initialisation import kaiming_
from espalier.predictors.zero_cost.network import logits
from espalier.predictors.zero_cost.probe import Probe
from espalier.predictors.zero_cost.score import Score

IMAGES = 16


class NTKCondition(Score):
    """κ = λ_max / λ_min of Θ_ij = <∂F_i/∂θ, ∂F_j/∂θ>, F_i = Σ_c f_c(x_i) the summed logits of image i.

    The trainability half of TE-NAS: Chen et al., "Neural Architecture Search on ImageNet in Four GPU Hours:
    A Theoretically Inspired Perspective", ICLR 2021. θ are all parameters with `weight` in their names, so the scales
    of normalisation layers too. Fresh weights N(0, 2/fan_out); batch norm by the statistics of the images used, which
    are the first 16: time grows with the square of their number, and the memory is that of a gradient for each.

    inf where Θ is singular (two equal images), nan where nothing depends on θ.
    """

    name = "ntk"
    higher_is_better = False
    needs = frozenset({"images"})
    batch_norm = "batch"

    def compute(self, probe: Probe) -> float:
        model, x = probe.network(), probe.x[:IMAGES]
        kaiming_(model, "fan_out")
        theta = [parameter for name, parameter in model.named_parameters() if "weight" in name]
        return condition(tangent_kernel(logits(model(x), len(x)).sum(1), theta))


def tangent_kernel(f: Tensor, theta: Sequence[Tensor]) -> Tensor:
    """Θ `(n, n)`, float64, of outputs f `(n,)` and the parameters θ they were computed from.

    Row by row: batch norm lets every image touch every output, so there is no sum to take apart.
    """
    rows = [torch.autograd.grad(f_i, theta, retain_graph=True, allow_unused=True, materialize_grads=True) for f_i in f]
    kernel = torch.zeros(len(f), len(f), dtype=torch.float64, device=f.device)
    for gradients in zip(*rows, strict=True):
        g = torch.stack(gradients).flatten(1).double()
        kernel += g @ g.T
    return kernel


def condition(kernel: Tensor) -> float:
    """λ_max / λ_min of a symmetric positive semi-definite `(n, n)`, float64; what rounding leaves of a 0 counts as 0.

    nan for a kernel of zeros, or one that is not finite.
    """
    if not bool(kernel.isfinite().all()):
        return float("nan")
    eigenvalues = torch.linalg.eigvalsh(kernel)
    largest, smallest = eigenvalues[-1], eigenvalues[0]
    rounding = len(kernel) * torch.finfo(kernel.dtype).eps * largest
    return float(largest / torch.where(smallest > rounding, smallest, 0.0))
