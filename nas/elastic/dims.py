"""Dimensions whose sizes are decided by choices, and the coverage of their entries under given gates."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espalier.nas.choices import Choice, ElasticChoice, Joint
from espalier.nas.gates import Gates, Mixture


@dataclass(frozen=True, eq=False)
class Extent:
    """The used part of a dimension.

    Attributes:
        size: number of leading entries to compute: those of the path, or of the largest open option of a mixture.
        coverage: the weight of each entry, `(size,)`; None on a path, where all weights are 1.
    """

    size: int
    coverage: Tensor | None


class Dim(nn.Module):
    """A dimension whose size is decided by choices: `size(o_1, ..., o_m)` of their options.

    Under gates with weights theta, entry p is weighted by its coverage

        u_p = sum_o theta_o 1[p < size(o)],    theta_o = prod_k theta^(k)_(o_k)

    with o over the joint options. u does not increase with p, and is 0 or 1 if theta is one-hot.

    Args:
        choices: what the size depends on; none for a fixed size. Dims with the same choice are decided together.
        size: the size as a function of the choices' options, at least 1; by default the option of the only choice.

    Attributes:
        largest: the size of the largest joint option.
    """

    def __init__(self, choices: Sequence[ElasticChoice], size: Callable[..., int] | None = None) -> None:
        super().__init__()
        self.choices = nn.ModuleList(choices)
        self.names = tuple(choice.name for choice in choices)
        self._measure = size or (lambda option: option)
        joints = itertools.product(*(range(len(choice.options)) for choice in choices))
        self._sizes: dict[Joint, int] = {
            joint: self._measure(*(choice.options[i] for choice, i in zip(choices, joint, strict=True)))
            for joint in joints
        }
        if any(type(value) is not int or value < 1 for value in self._sizes.values()):
            raise ValueError(f"sizes of {self.names or 'a fixed dim'} are not integers of at least 1: {self._sizes}")
        self.largest = max(self._sizes.values())
        self._coverage = Coverage([self])

    def extent(self, gates: Gates) -> Extent:
        """The used part under these gates."""
        masks = self._coverage(gates)
        return Extent(self.size(gates), masks[0][1] if masks else None)

    def size(self, gates: Gates) -> int:
        """The number of leading entries to compute under these gates, see `Extent`."""
        return max(self._sizes[joint] for joint in open_joints(self.choices, gates))

    def size_of(self, joint: Joint) -> int:
        """The size of one joint option."""
        return self._sizes[joint]

    def times(self, factor: int) -> Dim:
        """A dim that is `factor` times as large, decided by the same choices."""
        return Dim(list(self.choices), lambda *options: factor * self._measure(*options))  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        return f"{', '.join(self.names) or 'fixed'}: {sorted(set(self._sizes.values()))}"


class Coverage:
    """The masks of a tensor whose axes are dims.

    Under superposition, the weight of a layer is `W * M` with

        M[p_1, ..., p_n] = sum_o theta_o 1[p_1 < size_1(o)] ... 1[p_n < size_n(o)]

    over the joint options of all choices (Sukthanker et al., "Weight-Entanglement Meets Gradient-Based NAS", 2024,
    algorithm 2, which adds up the padded slices themselves). Axes without a common choice are independent: M is the
    outer product of one mask for each group of axes that share choices.

    Args:
        dims: the dims of the axes, in order.
    """

    def __init__(self, dims: Sequence[Dim]) -> None:
        self._groups = [_Group([dims[axis] for axis in axes], axes) for axes in _connected(dims)]

    def __call__(self, gates: Gates) -> list[tuple[tuple[int, ...], Tensor]]:
        """The axes and the mask of each group that is not on a path.

        Masks have the open sizes `(size of the first axis, ...)`, in the precision of the gates.
        """
        masks = ((group.axes, group.mask(gates)) for group in self._groups)
        return [(axes, mask) for axes, mask in masks if mask is not None]

    def apply(self, tensor: Tensor, gates: Gates) -> Tensor:
        """`tensor * M`.

        Args:
            tensor: its axes are the dims, cut to their open sizes.
            gates: of this forward pass.
        """
        for axes, mask in self(gates):
            shape = [1] * tensor.dim()
            for axis, size in zip(axes, mask.shape, strict=True):
                shape[axis] = size
            tensor = tensor * mask.view(shape)
        return tensor


class _Group:
    """A group of axes that share choices, with their joint mask."""

    def __init__(self, dims: Sequence[Dim], axes: tuple[int, ...]) -> None:
        self.axes = axes
        self._dims = dims
        by_name: dict[str, Choice] = {choice.name: choice for dim in dims for choice in dim.choices}  # type: ignore[misc]
        self._choices = list(by_name.values())
        order = list(by_name)
        self._positions = [[order.index(name) for name in dim.names] for dim in dims]
        self._tables: dict[tuple[object, ...], list[Tensor]] = {}

    def mask(self, gates: Gates) -> Tensor | None:
        """The mask over the open sizes of the axes; None on a path."""
        theta = joint_weights(self._choices, gates)
        if theta is None:
            return None
        first, *rest = self._tables_of(open_joints(self._choices, gates), theta)
        if not rest:
            return theta @ first
        letters = "abdefgh"[: len(rest) + 1]
        equation = f"c{''.join(f',c{letter}' for letter in letters)}->{letters}"
        return torch.einsum(equation, theta, first, *rest)

    def _tables_of(self, joints: tuple[Joint, ...], like: Tensor) -> list[Tensor]:
        """1[p < size(o)] for each axis, `(joint options, open size)`."""
        key = (joints, like.device, like.dtype)
        if key not in self._tables:
            tables = []
            for dim, positions in zip(self._dims, self._positions, strict=True):
                sizes = [dim.size_of(tuple(joint[i] for i in positions)) for joint in joints]
                entries = torch.arange(max(sizes), device=like.device)
                tables.append((entries < torch.tensor(sizes, device=like.device)[:, None]).to(like.dtype))
            self._tables[key] = tables
        return self._tables[key]


def fixed(size: int) -> Dim:
    """A dim of a fixed size."""
    return Dim((), lambda: size)


def as_dim(size: int | Dim) -> Dim:
    """The dim itself, or a fixed dim of this size."""
    return fixed(size) if isinstance(size, int) else size


def open_joints(choices: Iterable[nn.Module], gates: Gates) -> tuple[Joint, ...]:
    """The open joint options: one option of each choice on a path, the active options of a mixture."""
    return tuple(itertools.product(*(_open(choice, gates) for choice in choices)))  # type: ignore[arg-type]


def joint_weights(choices: Iterable[Choice], gates: Gates) -> Tensor | None:
    """The weights theta of `open_joints`, in their order; None if every choice is on a path."""
    found = [choice.gate(gates) for choice in choices]
    factors = [_active_weights(gate) for gate in found if isinstance(gate, Mixture)]
    return functools.reduce(lambda a, b: torch.outer(a, b).flatten(), factors) if factors else None


def _open(choice: Choice, gates: Gates) -> tuple[int, ...]:
    gate = choice.gate(gates)
    return gate.active if isinstance(gate, Mixture) else (gate,)


def _active_weights(gate: Mixture) -> Tensor:
    whole = len(gate.active) == len(gate.weights)
    return gate.weights if whole else torch.stack([gate.weights[i] for i in gate.active])


def _connected(dims: Sequence[Dim]) -> list[tuple[int, ...]]:
    """The axes in groups, such that axes of different groups share no choice."""
    groups: list[tuple[set[str], list[int]]] = []
    for axis, dim in enumerate(dims):
        met = [group for group in groups if group[0] & set(dim.names)]
        names = set(dim.names).union(*(group[0] for group in met))
        axes = sorted([axis, *(other for group in met for other in group[1])])
        groups = [*(group for group in groups if group not in met), (names, axes)]
    return sorted(tuple(axes) for _, axes in groups)
