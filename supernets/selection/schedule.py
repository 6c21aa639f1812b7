"""When each choice is decided: visits to a supernet, with training between them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import zip_longest
from typing import TypeGuard

import torch

from espalier.nas.choices import Choice, InputChoice
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace

Visit = tuple[str, ...]
"""Names of choices that are decided one after another, without training between them."""


def keeps_edges(choice: Choice) -> TypeGuard[InputChoice]:
    """Whether the choice selects among outputs of layer choices, which is a decision on topology."""
    return isinstance(choice, InputChoice) and choice.edges is not None


def plan_visits(space: SearchSpace, region: Region, generator: torch.Generator) -> list[Visit]:
    """Every undecided choice once, in random order, all operations before any topology.

    A visit decides one choice of each family of the space, such as one normal and one reduction edge (Wang et al.,
    "Rethinking Architecture Selection in Differentiable NAS", ICLR 2021).
    """
    choices = space.choices()
    families = space.choice_groups()
    topologies = [name for name in region.undecided if keeps_edges(choices[name])]
    operations = [name for name in region.undecided if not keeps_edges(choices[name])]
    return [*_side_by_side(operations, families, generator), *_side_by_side(topologies, families, generator)]


def visit_epochs(operations: int, topologies: int, interval: int) -> list[int]:
    """Epochs of tuning before each visit, counted from the first.

    Every `interval` epochs. Where no topology follows the operations, the last visit comes one epoch early, but not
    right after the one before. So the authors' code has it: 0, 5, 10, 15, 20, 24 for the six edges of NAS-Bench-201,
    0, 5, ..., 80 for the fourteen edges and three nodes of DARTS. Its one more epoch after the last visit decides
    nothing, and is left out.
    """
    epochs = [visit * interval for visit in range(operations + topologies)]
    if len(epochs) > 1 and not topologies and interval > 1:
        epochs[-1] -= 1
    return epochs


def _side_by_side(names: Sequence[str], families: Sequence[Collection[str]], generator: torch.Generator) -> list[Visit]:
    orders = []
    for family in families:
        members = [name for name in names if name in family]
        orders.append([members[i] for i in torch.randperm(len(members), generator=generator).tolist()])
    return [tuple(name for name in visit if name is not None) for visit in zip_longest(*orders)]
