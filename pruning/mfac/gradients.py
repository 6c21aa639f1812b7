"""The gradients of mini-batches that the Fisher matrix is made of, for the weights that are not pruned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn

from espalier.nas.errors import UserError
from espalier.nas.task import Batch, Task, batch_loss
from espalier.nas.training import Diverged
from espalier.pruning.masks import Masks
from espalier.pruning.weights import Weights

BATCH_SIZE = 32
"""Images of a mini-batch in the authors' code."""


class Layout:
    """How d weights are laid out in one vector: tensor after tensor, without pruned weights.

    Args:
        weights: by name.
        masks: True where kept; None keeps all.
    """

    def __init__(self, weights: Weights, masks: Masks | None = None) -> None:
        self.shapes = {name: weight.shape for name, weight in weights.items()}
        self.masks = None if masks is None else {name: masks[name].reshape(-1) for name in weights}
        kept = self.shapes if self.masks is None else self.masks
        self.counts = {name: shape.numel() for name, shape in self.shapes.items()}
        if self.masks is not None:
            self.counts = {name: int(self.masks[name].sum()) for name in kept}
        self.d = sum(self.counts.values())

    def gather(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """One vector `(d,)` from one tensor for each weight."""
        flat = {name: tensors[name].reshape(-1) for name in self.shapes}
        if self.masks is not None:
            flat = {name: flat[name][mask] for name, mask in self.masks.items()}
        return torch.cat(list(flat.values()))

    def scatter(self, vector: Tensor, *, fill: float | bool) -> dict[str, Tensor]:
        """The parts of a vector `(d,)` in the weights' shapes, with `fill` in place of pruned weights."""
        parts = dict(zip(self.counts, vector.split(list(self.counts.values())), strict=True))
        if self.masks is not None:
            for name, mask in self.masks.items():
                full = torch.full(mask.shape, fill, dtype=vector.dtype, device=vector.device)
                full[mask] = parts[name]
                parts[name] = full
        return {name: parts[name].view(shape) for name, shape in self.shapes.items()}


def gradients(
    model: nn.Module,
    task: Task,
    batches: Iterable[Batch],
    weights: Weights,
    m: int,
    *,
    masks: Masks | None = None,
    batch_size: int = BATCH_SIZE,
) -> Tensor:
    """G: the gradients of the mean loss of m mini-batches with respect to the kept weights, `(m, d)`.

    In evaluation mode, with batch norm's running statistics and without dropout, in the model's own precision. The
    modes of its modules, its `.grad` and torch's random state are restored.

    In expectation over mini-batches of b images, g gᵀ is 1/b of the Fisher matrix of single images, plus (1 - 1/b)
    times that of the mean gradient. So lambda weighs b times as much against the former: smaller mini-batches need a
    larger lambda.

    Args:
        model: the network.
        task: gives the loss.
        batches: repeated as often as needed; its own random state advances.
        weights: with respect to which gradients are taken, by name.
        m: number of rows.
        masks: True where kept; None keeps all.
        batch_size: b. Larger batches are split, and the remainder is not used; smaller ones are used as they are.

    Returns:
        float64 for weights in float64, otherwise float32.

    Raises:
        UserError: there are no more batches.
        Diverged: a gradient is not finite.
    """
    if m < 1 or batch_size < 1:
        raise ValueError(f"m and batch_size must be at least 1, not {m} and {batch_size}")
    layout = Layout(weights, masks)
    first = next(iter(weights.values()))
    dtype = torch.float64 if first.dtype == torch.float64 else torch.float32
    rows = torch.empty(m, layout.d, dtype=dtype, device=first.device)
    tensors = list(weights.values())
    with _undisturbed(model, tensors), torch.random.fork_rng(), torch.enable_grad():
        for row, (x, y) in zip(rows, islice(_cycle(batches, batch_size), m), strict=True):
            loss, _ = batch_loss(task, model, (x, y))
            parts = torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)
            row.copy_(layout.gather(dict(zip(weights, parts, strict=True))))
    finite = rows.isfinite().all(dim=1)
    if not bool(finite.all()):
        raise Diverged(f"{int((~finite).sum())} of {m} gradients are not finite, so there is no Fisher matrix")
    return rows


def _cycle(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Mini-batches of `size`, endlessly."""
    while True:
        none = True
        for x, y in batches:
            count = max(1, len(x) // size)  # without the remainder
            for index in range(count):
                none = False
                at = slice(index * size, (index + 1) * size)
                yield x[at], y[at]
        if none:
            problem = "no batches are left to compute gradients on; pass a list or a loader that can be iterated again"
            raise UserError("data", problem, code="too_few")


@contextmanager
def _undisturbed(model: nn.Module, weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Evaluation mode with gradients for the weights; restores each module's mode on exit."""
    training = {module: module.training for module in model.modules()}
    frozen = [weight for weight in weights if not weight.requires_grad]
    model.eval()
    try:
        for weight in frozen:
            weight.requires_grad_(True)
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
        for module, was_training in training.items():
            module.training = was_training
