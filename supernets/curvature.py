"""How sharply the validation loss curves in the architecture parameters.

Zela et al., "Understanding and Robustifying Differentiable Architecture Search", ICLR 2020: where the dominant
eigenvalue of d2 L_val / d alpha2 grows, rounding the mixture to one architecture costs accuracy, and what DARTS finds
generalises badly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from espalier.nas.space import SearchSpace
from espalier.nas.task import Batch
from espalier.nas.training import Diverged
from espalier.supernets.batch_norm import frozen_statistics
from espalier.supernets.gradient_strategy import AlphaStrategy
from espalier.supernets.strategy import Strategy

TOLERANCE = 1e-3
"""Of the eigenvalue, relative, from one iteration to the next."""
MAX_ITERATIONS = 100
"""By then an eigenvalue that has not settled has another within a few percent of it."""
IMAGES = 32
"""Of the batch, to look at: the graph of the whole mixture is kept twice, which a strategy of one path never does."""
WINDOW = 5
"""Epochs that an eigenvalue is averaged over, and that lie between two averages: k of Zela et al., section 4.3."""
GROWTH = 1 / 0.75
"""Of these averages, from one to the next, beyond which Zela et al. stop."""


def sharpness(supernet: SearchSpace, strategy: Strategy, batch: Batch, *, seed: int) -> float | None:
    """The dominant eigenvalue of the Hessian of the cross-entropy with respect to alpha, at the mean gates.

    The whole mixture is run on the batch, with the batch's own statistics, in full precision. Nothing is changed.

    Args:
        supernet: with its weights, which are constants here.
        strategy: as it stands.
        batch: of validation images.
        seed: of the first direction, and of whatever is random in the supernet.

    Returns:
        None where no architecture parameter has anything left to learn.

    Raises:
        Diverged: it is not finite.
    """
    if not isinstance(strategy, AlphaStrategy) or not strategy.learns:
        return None
    alphas = [strategy.alphas.values[name] for name in strategy.region.undecided if name in strategy.alphas.values]
    if not alphas:
        return None
    x, y = (part[:IMAGES] for part in batch)
    weights = {name: parameter.detach() for name, parameter in supernet.named_parameters()}
    was_training = supernet.training
    supernet.train()
    # Of torch's ways to compute attention, only the plain one has a second derivative.
    with frozen_statistics(supernet), torch.random.fork_rng(), sdpa_kernel(SDPBackend.MATH):
        torch.manual_seed(seed)
        gates = strategy.alphas.gates(strategy.region, strategy.weigh)
        logits = torch.func.functional_call(supernet, weights, (x, gates))
    supernet.train(was_training)
    return dominant_eigenvalue(F.cross_entropy(logits, y), alphas, seed=seed)


def dominant_eigenvalue(loss: Tensor, parameters: Sequence[Tensor], *, seed: int) -> float:
    """The eigenvalue of H = d2 loss / d parameters2 that is largest in magnitude, with its sign.

        v <- Hv / ||Hv||        lambda = sign(v . Hv) ||Hv||

    Power iteration with H v = d(<d loss, v>), a second pass backward (Pearlmutter, "Fast Exact Multiplication by the
    Hessian", Neural Computation 6, 1994). ||Hv|| never falls, and settles even where -lambda is an eigenvalue too.

    Args:
        loss: a scalar with a twice differentiable graph to the parameters.
        parameters: what H is taken over.
        seed: of the first v.

    Returns:
        0 where H is. Of two eigenvalues whose magnitudes differ by a few percent, something between them, or either.

    Raises:
        Diverged: the loss or its curvature is not finite.
    """
    slopes = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True, materialize_grads=True)
    slope = torch.cat([part.flatten() for part in slopes])
    if not slope.requires_grad:
        return 0.0  # linear in all parameters
    v = torch.randn(len(slope), generator=torch.Generator().manual_seed(seed)).to(slope)
    magnitude, sign = 0.0, 1.0
    for _ in range(MAX_ITERATIONS):
        v = v / v.norm()
        parts = torch.autograd.grad(
            slope, parameters, grad_outputs=v, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        hv = torch.cat([part.flatten() for part in parts])
        before, magnitude, sign = magnitude, float(hv.norm()), float(v @ hv)
        if not math.isfinite(magnitude):
            raise Diverged(f"the curvature of the validation loss in the architecture parameters is {magnitude}")
        if magnitude - before <= TOLERANCE * magnitude:
            break
        v = hv
    return math.copysign(magnitude, sign)


def eigenvalue_growth(rows: Sequence[Mapping[str, float]]) -> float | None:
    """lambda(i) / lambda(i - k), each a mean over k = 5 epochs, i the last one.

    Args:
        rows: of the epochs; those with an `eigenvalue` count.

    Returns:
        None before ten epochs, and where a mean is not positive: the loss has no minimum there that could be sharp.
    """
    eigenvalues = [row["eigenvalue"] for row in rows if "eigenvalue" in row]
    if len(eigenvalues) < 2 * WINDOW:
        return None
    now = sum(eigenvalues[-WINDOW:]) / WINDOW
    before = sum(eigenvalues[-2 * WINDOW : -WINDOW]) / WINDOW
    return now / before if now > 0 and before > 0 else None


def largest_growth(rows: Sequence[Mapping[str, float]]) -> tuple[float, int] | None:
    """The largest `eigenvalue_growth` that there has been, and its last epoch; None where there has been none."""
    growths = [(eigenvalue_growth(rows[:epoch]), epoch) for epoch in range(1, len(rows) + 1)]
    return max(((growth, epoch) for growth, epoch in growths if growth is not None), default=None)
