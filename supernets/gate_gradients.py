"""The gradient with respect to binary gates, at the memory of one path.

Cai, Zhu & Han, "ProxylessNAS", ICLR 2019, section 3.1: with y = sum_j g_j o_j(x) and g one-hot,

    b_j = dL/dg_j = <dL/dy, o_j(x)>
    dL/dalpha_i = sum_j b_j p_j (delta_ij - p_i) = p_i (b_i - sum_j p_j b_j)

The second line takes dp/dalpha for dg/dalpha (Courbariaux et al., "BinaryConnect", NeurIPS 2015). Only the active
path is in the graph. The outputs of the other options are made afterwards, one at a time and without a gradient, from
the x and dL/dy that were kept at each choice.

The options of an elastic choice are parts of one another. There b comes out of the same pass backward, through one-hot
weights of the largest option that is asked for, whose memory it takes.
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
from espalier.supernets.statistics import frozen_statistics


def gate_gradients(
    space: SearchSpace,
    loss: Callable[[Mapping[str, Gate]], Tensor],
    path: Mapping[str, int],
    options: Mapping[str, Sequence[int]],
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss along a path, and b of the options asked for. No parameter gets a gradient.

    An option that passes nothing counts as o = 0: its own b is 0, and where it is the active one, those of the others
    are what they would be beside any zero. Of a choice that stands in several places b is the sum over them.

    Args:
        space: the supernet, in the mode in which it is asked.
        loss: runs it and gives a scalar; takes the gates of the choices of `path`, all along that path.
        path: the active option of each choice in `options`, at least.
        options: the options that are asked for.

    Returns:
        The loss without its graph, and by choice b in float32 or better, `(all options,)`, 0 where not asked for.
    """
    with frozen_statistics(space):
        rows = {name: _one_hot(space, name, path[name]) for name in options if _is_elastic(space, name)}
        with _recorded(space, [name for name in options if name not in rows]) as visits:
            elastic = {name: Mixture(row, _open(options[name], path[name])) for name, row in rows.items()}
            value = loss({**path, **elastic})
        tensors = [*rows.values(), *(visit.y for visit in visits)]
        found = torch.autograd.grad(value, tensors, allow_unused=True)
        slopes = found[len(rows) :]
        dtype = torch.promote_types(value.dtype, torch.float32)
        b = {name: value.new_zeros(len(space.choices()[name].options), dtype=dtype) for name in options}
        b |= {name: b[name] if g is None else g.to(dtype) for name, g in zip(rows, found, strict=False)}
        with torch.no_grad(), autocast(value.device):
            for visit, slope in zip(visits, slopes, strict=True):
                if slope is not None:  # else nothing after this place reaches the loss
                    name = visit.choice.name
                    for j in options[name]:
                        b[name][j] += inner(slope, visit.y if j == path[name] else visit.output(j))
    return value.detach(), b


def alpha_gradient(p: Tensor, b: Tensor) -> Tensor:
    """dL/dalpha_i = p_i (b_i - sum_j p_j b_j), all `(options,)`; exactly 0 where p is."""
    return p * (b - p @ b)


def inner(a: Tensor, b: Tensor | None) -> Tensor | float:
    """<a, b> of two tensors of one shape, in float32 or better whatever they are stored in; None counts as 0."""
    if b is None:
        return 0.0
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return (a.to(dtype) * b.to(dtype)).sum()


@dataclass(frozen=True, eq=False)
class _Visit:
    """A choice met in the forward pass: what went in, without a graph, and what came out of the active option."""

    choice: Choice
    x: Any
    y: Tensor

    def output(self, index: int) -> Tensor | None:
        """What an option makes of x; None where it passes nothing."""
        output: Tensor | None = self.choice(self.x, {self.choice.name: index})
        return output


def _is_elastic(space: SearchSpace, name: str) -> bool:
    return isinstance(space.choices()[name], ElasticChoice)


def _one_hot(space: SearchSpace, name: str, index: int) -> Tensor:
    row = torch.zeros(len(space.choices()[name].options)).to(next(space.parameters()))
    row[index] = 1.0
    return row.requires_grad_()


def _open(options: Sequence[int], active: int) -> tuple[int, ...]:
    return tuple(sorted({*options, active}))


@contextmanager
def _recorded(space: SearchSpace, names: Collection[str]) -> Iterator[list[_Visit]]:
    visits: list[_Visit] = []

    def hook(choice: Choice, args: tuple[Any, Any], output: Tensor | None) -> Tensor:
        x = args[0].detach() if isinstance(args[0], Tensor) else [None if t is None else t.detach() for t in args[0]]
        y = _zeros(choice, x) if output is None else output
        # A tensor of its own: the output of an identity is its input, which others read too.
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
    """Zeros in the shape of what the first option that passes something gives."""
    with torch.no_grad():
        outputs = (choice.forward(x, {choice.name: j}) for j in range(len(choice.options)))
        return torch.zeros_like(next(output for output in outputs if output is not None))
