"""The gradient with respect to binary gates, at the memory of one path.

Cai, Zhu & Han, "ProxylessNAS", ICLR 2019, section 3.1: with y = sum_j g_j o_j(x) and g one-hot,

    b_j = dL/dg_j = <dL/dy, o_j(x)>
    dL/dalpha_i = sum_j b_j p_j (delta_ij - p_i) = p_i (b_i - sum_j p_j b_j)

The second line uses dp/dalpha in place of dg/dalpha (Courbariaux et al., "BinaryConnect", NeurIPS 2015). Only the
active path is in the autograd graph. The outputs of the other options are computed afterwards, one at a time and
without a graph, from the x and dL/dy that were kept at each choice.

The options of an elastic choice share their weights. There b comes out of the same backward pass, as the gradient of
one-hot mixture weights; this takes the memory of the largest option that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from espalier.nas.choices import Choice, ElasticChoice
from espalier.nas.device import autocast
from espalier.nas.gates import Gate, Mixture
from espalier.nas.space import SearchSpace
from espalier.supernets.batch_norm import frozen_statistics


def gate_gradients(
    space: SearchSpace,
    loss: Callable[[Mapping[str, Gate]], Tensor],
    path: Mapping[str, int],
    options: Mapping[str, Sequence[int]],
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss along a path, and b of the options asked for. No parameter gets a gradient.

    An option that passes nothing counts as o = 0: its own b is 0, and where it is active, dL/dy is taken at y = 0.
    A choice that occurs in several places has the sum of their b.

    Args:
        space: the supernet, in training or evaluation mode; the mode is kept.
        loss: runs the supernet under the gates of `path` and returns a scalar.
        path: the active option of each choice; at least of those in `options`.
        options: by choice, the options whose b is wanted.

    Returns:
        The loss, detached, and for each choice b `(all options,)`, in float32 or better, 0 for options not asked for.
    """
    with frozen_statistics(space):
        # Elastic choices: b is dL/d(row), as y is linear in the one-hot row. All others: their x and y are recorded.
        rows = {name: _one_hot(space, name, path[name]) for name in options if _is_elastic(space, name)}
        with _recorded(space, [name for name in options if name not in rows]) as visits:
            elastic = {name: Mixture(row, _open(options[name], path[name])) for name, row in rows.items()}
            value = loss({**path, **elastic})
        # One backward pass gives b of the elastic choices and dL/dy of every other place, and no parameter's gradient.
        tensors = [*rows.values(), *(visit.y for visit in visits)]
        found = torch.autograd.grad(value, tensors, allow_unused=True)
        slopes = found[len(rows) :]
        dtype = torch.promote_types(value.dtype, torch.float32)
        b = {name: value.new_zeros(len(space.choices()[name].options), dtype=dtype) for name in options}
        b |= {name: b[name] if g is None else g.to(dtype) for name, g in zip(rows, found, strict=False)}
        # b_j = <dL/dy, o_j(x)>: run each other option on the x that the active one had.
        with torch.no_grad(), autocast(value.device):
            for visit, slope in zip(visits, slopes, strict=True):
                if slope is not None:  # None: nothing behind this place reaches the loss
                    name = visit.choice.name
                    for j in options[name]:
                        b[name][j] += inner(slope, visit.y if j == path[name] else visit.output(j))
    return value.detach(), b


def alpha_gradient(p: Tensor, b: Tensor) -> Tensor:
    """dL/dalpha_i = p_i (b_i - sum_j p_j b_j), all `(options,)`; exactly 0 where p is."""
    return p * (b - p @ b)


def inner(a: Tensor, b: Tensor | None) -> Tensor | float:
    """<a, b> of two tensors of the same shape, in float32 or better whatever their type; None counts as 0."""
    if b is None:
        return 0.0
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return (a.to(dtype) * b.to(dtype)).sum()


@dataclass(frozen=True, eq=False)
class _Visit:
    """A choice in the forward pass: its input, detached, and the output of its active option."""

    choice: Choice
    x: Any
    y: Tensor

    def output(self, index: int) -> Tensor | None:
        """The output of an option for x; None where it passes nothing."""
        output: Tensor | None = self.choice(self.x, {self.choice.name: index})
        return output


def _is_elastic(space: SearchSpace, name: str) -> bool:
    return isinstance(space.choices()[name], ElasticChoice)


def _one_hot(space: SearchSpace, name: str, index: int) -> Tensor:
    row = torch.zeros(len(space.choices()[name].options)).to(next(space.parameters()))
    row[index] = 1.0
    return row.requires_grad_()


def _open(options: Sequence[int], active: int) -> tuple[int, ...]:
    """The options to compute: those asked for, and the active one."""
    return tuple(sorted({*options, active}))


@contextmanager
def _recorded(space: SearchSpace, names: Collection[str]) -> Iterator[list[_Visit]]:
    """Keeps x and y of these choices within the block, and makes every y a tensor to differentiate with respect to."""
    visits: list[_Visit] = []

    def hook(choice: Choice, args: tuple[Any, Any], output: Tensor | None) -> Tensor:
        x = args[0].detach() if isinstance(args[0], Tensor) else [None if t is None else t.detach() for t in args[0]]
        y = _zeros(choice, x) if output is None else output
        # dL/dy must be that of this choice's output alone. An identity returns its input, which other layers read too,
        # so y becomes a tensor of its own: a view in the graph or, where the path has no graph yet, a new leaf.
        y = y.view_as(y) if y.requires_grad else y.detach().requires_grad_()
        visits.append(_Visit(choice, x, y))
        return y

    choices = [module for module in space.modules() if isinstance(module, Choice) and module.name in names]
    handles = [choice.register_forward_hook(hook) for choice in choices]
    try:
        yield visits
    finally:
        for handle in handles:
            handle.remove()


def _zeros(choice: Choice, x: Any) -> Tensor:
    """Zeros in the shape of the output of the first option that passes something."""
    with torch.no_grad():
        outputs = (choice.forward(x, {choice.name: j}) for j in range(len(choice.options)))
        return torch.zeros_like(next(output for output in outputs if output is not None))
