"""The gradients that the Fisher matrix is made of: mini-batch by mini-batch, of the weights that are still there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn

from espalier.nas.errors import UserError
from espalier.nas.task import Batch, Task
from espalier.nas.training import Diverged
from espalier.pruning.masks import Masks
from espalier.pruning.weights import Weights

BATCH_SIZE = 32
"""Images of a mini-batch in the authors' code."""


class Layout:
    """The order of d weights in one vector: weight after weight, without those that a mask does not keep.

    Args:
        weights: by name.
        masks: true where kept; None keeps all.
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
        """One vector `(d,)` of a tensor for each weight."""
        flat = {name: tensors[name].reshape(-1) for name in self.shapes}
        if self.masks is not None:
            flat = {name: flat[name][mask] for name, mask in self.masks.items()}
        return torch.cat(list(flat.values()))

    def scatter(self, vector: Tensor, *, fill: float | bool) -> dict[str, Tensor]:
        """The parts of a vector `(d,)` in the weights' shapes; `fill` stands where no weight is kept."""
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
    """G: the gradients of the mean loss of m mini-batches by the weights that are kept, `(m, d)`.

    In evaluation mode, so that batch norm's running statistics count and dropout does not; in the model's own
    precision. The modes of its modules, its `.grad` and torch's random state are afterwards as they were.

    In expectation over mini-batches of b images, g gᵀ is 1/b of the Fisher matrix of single images, plus (1 - 1/b)
    times that of the mean gradient. So lambda weighs b times as much against the former: smaller mini-batches want a
    larger lambda.

    Args:
        batches: gone through as often as it takes; its own random state moves on.
        m: rows, exactly.
        masks: true where kept; None keeps all.
        batch_size: b. Larger batches are cut into such, and what is left over is not used; smaller ones are taken as
            they are.

    Returns:
        float64 for weights in float64, otherwise float32.

    Raises:
        UserError: there is no batch to go on with.
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
            loss = task.loss(model(x), y)
            parts = torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)
            row.copy_(layout.gather(dict(zip(weights, parts, strict=True))))
    finite = rows.isfinite().all(dim=1)
    if not bool(finite.all()):
        raise Diverged(f"{int((~finite).sum())} of {m} gradients are not finite: there is no Fisher matrix of them")
    return rows


def _cycle(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Mini-batches of `size`, over and over."""
    while True:
        none = True
        for x, y in batches:
            count = max(1, len(x) // size)  # without what is left over
            for index in range(count):
                none = False
                at = slice(index * size, (index + 1) * size)
                yield x[at], y[at]
        if none:
            problem = "no batches are left to compute gradients on; pass a list or a loader that can be iterated again"
            raise UserError("data", problem, code="too_few")


@contextmanager
def _undisturbed(model: nn.Module, weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """Evaluation mode and gradients of the weights within; each module's mode as it was afterwards."""
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
