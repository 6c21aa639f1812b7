"""Finding all layers of a model space's networks, from networks that differ as much as possible."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import nn

from espalier.nas.architecture import Architecture
from espalier.nas.errors import UserError
from espalier.nas.spaces.nni.choices import MutableChoice
from espalier.nas.spaces.nni.library import WHERE
from espalier.nas.spaces.nni.weights import Inventory

CHECKS, CHECKS_UNDER_CONSTRAINTS = 24, 200
"""Random networks that must contain no new layer; more of them if NNI cannot make all the planned ones."""


class ModelSpace(Protocol):
    """What a survey asks of a space of NNI's models; see `espalier.nas.spaces.nni.space.NniSpace`."""

    def choices(self) -> Mapping[str, MutableChoice]:
        """The choices by name."""
        ...

    def sample(self, generator: torch.Generator) -> Architecture:
        """A uniform draw among the valid architectures."""
        ...

    def contains(self, architecture: Architecture) -> bool:
        """Whether an architecture satisfies the constraints."""
        ...

    def skeleton(self, architecture: Architecture) -> nn.Module:
        """The model of an architecture without weights."""
        ...


def survey(space: ModelSpace) -> Inventory:
    """An inventory of the layers that the networks of a space need.

    It is complete if each layer depends on at most one layer choice and one choice of inputs, or on one size, and if
    its extents grow with the sizes: every such pair is visited with the largest sizes, and every option of a size with
    the largest value of any other size. Some of these networks may violate a constraint, which does not matter here.
    Random networks then check that the inventory is complete.

    Args:
        space: the space.

    Raises:
        UserError: a random network needs a layer that the inventory does not contain.
    """
    inventory = Inventory()
    checks = CHECKS
    for architecture in _walk(space):
        try:
            inventory.add(space.skeleton(architecture))
        except Exception:
            if space.contains(architecture):
                raise
            checks = CHECKS_UNDER_CONSTRAINTS
    generator = torch.Generator().manual_seed(0)
    for _ in range(checks):
        new = inventory.add(space.skeleton(space.sample(generator)))
        if new is not None:
            problem = f"cannot be a supernet: its layer {new} depends on several choices at once"
            raise UserError(
                WHERE, f"{problem}; its networks can be searched, scored, trained and exported", code="unsupported"
            )
    return inventory


def _walk(space: ModelSpace) -> Iterator[Architecture]:
    choices = space.choices().values()
    sizes = [c for c in choices if c.is_size]
    largest = {c.name: c.options[c.values.index(max(c.values))] for c in sizes}
    steps = max((len(c.options) for c in choices if not c.is_size and not c.is_subset), default=1)
    shifts = max((len(c.options) for c in choices if c.is_subset), default=1)
    for step, shift in itertools.product(range(steps), range(shifts)):
        in_step = {c.name: c.options[(step + shift * c.is_subset) % len(c.options)] for c in choices}
        yield Architecture(in_step | largest)
    for walking in _halves(sizes):
        for step in range(max(len(c.options) for c in walking)):
            in_step = {c.name: c.options[step % len(c.options)] for c in choices}
            yield Architecture(in_step | largest | {c.name: in_step[c.name] for c in walking})


def _halves(sizes: Sequence[MutableChoice]) -> Iterator[list[MutableChoice]]:
    """Groups by the bits of an index: for any two sizes, one group contains the first but not the second."""
    for bit in range(len(sizes).bit_length()):
        for value in (0, 1):
            if half := [size for index, size in enumerate(sizes) if index >> bit & 1 == value]:
                yield half
