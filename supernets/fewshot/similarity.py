"""How much the options of a choice disagree on the shared weights: distances between their gradients.

Hu et al., "Generalizing Few-Shot NAS with Gradient Matching", ICLR 2022: options whose gradients on the
weights they share point in different directions harm each other in one supernet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from espalier.nas.choices import Choice
from espalier.nas.gates import Gates, Mixture
from espalier.nas.space import SearchSpace
from espalier.nas.task import Batch
from espalier.nas.training import Diverged
from espalier.supernets.batch_norm import frozen_statistics
from espalier.supernets.constraints import rejection_sample, satisfies_constraints
from espalier.supernets.noise import paired_noise
from espalier.supernets.strategy import Strategy

Gradients = Mapping[str, Tensor]
"""Gradient by parameter name; a parameter that is missing has gradient zero."""
Loss = Callable[[Batch, Gates], Tensor]


def shared_parameters(space: SearchSpace, name: str) -> dict[str, nn.Parameter]:
    """The weights that all options of a choice train: every one but those inside the choice itself, in all places."""
    modules = [module for module in space.modules() if isinstance(module, Choice) and module.name == name]
    own = {id(parameter) for module in modules for parameter in module.parameters()}
    return {key: p for key, p in space.named_parameters() if p.requires_grad and id(p) not in own}


def gram(gradients: Sequence[Gradients]) -> NDArray[np.float64]:
    """G G^T (n, n) of the n gradients as rows, summed parameter by parameter: G itself is never laid out."""
    product: Tensor | float = 0.0
    for name in dict.fromkeys(name for row in gradients for name in row):
        some = next(row[name] for row in gradients if name in row)
        rows = torch.stack([row.get(name, torch.zeros_like(some)).flatten() for row in gradients]).double()
        product = product + rows @ rows.T
    return product.cpu().numpy() if isinstance(product, Tensor) else np.zeros((len(gradients),) * 2)


def distances(gradients: Sequence[Gradients]) -> NDArray[np.float64]:
    """D_oo' = 1 - <g_o, g_o'> / (|g_o| |g_o'|), shape (n, n), between 0 (same direction) and 2 (opposite).

    A zero gradient has no direction: its distance is 1 from every option, including itself. So a 1 on the diagonal
    flags it, and the other options decide which group it joins.

    Raises:
        Diverged: a gradient is not finite.
    """
    products = gram(gradients)
    if not np.isfinite(products).all():
        raise Diverged("gradients that are not finite cannot be compared; a smaller learning rate may help")
    norms = np.sqrt(products.diagonal())
    scale = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    result = 1 - np.outer(scale, scale) * products
    np.fill_diagonal(result, norms == 0)
    return result


class GradientDistances:
    """Repeated measurements of the distances, each on a fresh batch and a fresh draw of the other choices' gates.

    Within one repeat everything but the scored option is the same: batch, gates, noise, and batch statistics, which
    are used but not recorded. The gates are those the strategy trains with, detached: a mixture where it trains
    mixtures, a path where it trains paths, drawn again until each option of the choice goes with it. The mean of the
    distances over repeats is the paper's estimate (not the distance of mean gradients). Torch's global generator is
    left as it was.

    Args:
        space: the supernet, after some training: at initialisation the distances mean nothing.
        strategy: its gates and its region; only options open there are scored.
        loss: of a batch, under gates.
        batches: endless.
        generator: a CPU generator, of the gates and the noise.

    Attributes:
        sample_passes: images passed forward and backward so far, the cost of the measurements.
    """

    def __init__(
        self, space: SearchSpace, strategy: Strategy, loss: Loss, batches: Iterator[Batch], generator: torch.Generator
    ) -> None:
        self.space = space
        self.strategy = strategy
        self.loss = loss
        self.batches = batches
        self.generator = generator
        self.sample_passes = 0

    def __call__(self, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """One repeat, on one batch: D (open options, open options) of each of these choices.

        Raises:
            UserError: the space's constraints leave no path on which all open options of a choice can be compared.
            Diverged: a gradient is not finite.
        """
        batch = next(self.batches)
        gates_seed, noise_seed = torch.randint(2**62, (2,), generator=self.generator).tolist()
        was_training = self.space.training
        self.space.train()
        with frozen_statistics(self.space):
            result = {
                name: distances(self.gradients(batch, self._gates(name, gates_seed), name, noise_seed))
                for name in names
            }
        self.space.train(was_training)
        self.sample_passes += len(batch[1]) * sum(len(self.strategy.region[name]) for name in names)
        return result

    def _gates(self, name: str, seed: int) -> Gates:
        """The first draw that goes with every open option; every choice goes through the same draws."""
        generator = torch.Generator().manual_seed(seed)
        return rejection_sample(
            lambda: detached(self.strategy.weight_gates(generator)),
            lambda gates: all(
                satisfies_constraints(self.space, {**gates, name: o}) for o in self.strategy.region[name]
            ),
            where="supernet.few_shot.split",
            problem=f"there is no path on which all options of {name!r} can be compared",
        )

    def gradients(self, batch: Batch, gates: Gates, name: str, seed: int) -> list[Gradients]:
        """The gradient of the loss on the shared weights with the choice's gate set to o, for each open option o."""
        shared = shared_parameters(self.space, name)
        rows: list[Gradients] = []
        for option in self.strategy.region[name]:
            with paired_noise(self.space, seed):
                loss = self.loss(batch, {**gates, name: option})
            found = torch.autograd.grad(loss, list(shared.values()), allow_unused=True)
            rows.append({key: g for key, g in zip(shared, found, strict=True) if g is not None})
        return rows


def detached(gates: Gates) -> Gates:
    """The same gates as constants."""
    return {
        name: Mixture(gate.weights.detach(), gate.active) if isinstance(gate, Mixture) else gate
        for name, gate in gates.items()
    }
