"""Which layers the networks of a model space have, found by looking at networks that differ as much as possible."""

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
"""Random networks that must bring no new layer; more of them where NNI refuses to make some that were to be seen."""


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

    It is complete where each layer hangs on one layer choice and one choice of inputs, or on one size, at most, and
    its extents grow with the sizes: every such pair is looked at with all sizes largest, and every option of a size
    with any other size largest. Some of these networks may violate a constraint, which does not matter here. Random
    ones check that it is complete.

    Raises:
        UserError: they need a layer, or a larger one, that the others had not.
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
            problem = f"cannot be a supernet: what its layer {new} is hangs on several choices at once"
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
    """Groups such that for any two sizes there is one with the first and without the second: by bits of their index."""
    for bit in range(len(sizes).bit_length()):
        for value in (0, 1):
            if half := [size for index, size in enumerate(sizes) if index >> bit & 1 == value]:
                yield half
