"""When which choice is decided: visits to a supernet, with training between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import TypeGuard

import torch

from nas.choices import Choice, InputChoice
from nas.region import Region
from nas.space import SearchSpace

Visit = tuple[str, ...]
"""Names of the choices that are decided one after another, with no training between them."""


def keeps_edges(choice: Choice) -> TypeGuard[InputChoice]:
    """Whether the choice is which outputs of layer choices are kept: a decision on topology."""
    return isinstance(choice, InputChoice) and choice.edges is not None


def plan_visits(space: SearchSpace, region: Region, generator: torch.Generator) -> list[Visit]:
    """Every undecided choice once, in random order, all operations before any topology.

    A visit decides one choice of each family, such as one normal and one reduction edge (Wang et al., "Rethinking
    Architecture Selection in Differentiable NAS", ICLR 2021). A family is what begins with the same letters:
    `normal_edge_2_0` and `normal_edge_2_1`, or `block_1` and `block_2`.
    """
    choices = space.choices()
    topologies = [name for name in region.undecided if keeps_edges(choices[name])]
    operations = [name for name in region.undecided if not keeps_edges(choices[name])]
    return [*_side_by_side(operations, generator), *_side_by_side(topologies, generator)]


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


def _side_by_side(names: Sequence[str], generator: torch.Generator) -> list[Visit]:
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(_family(name), []).append(name)
    orders = [
        [family[i] for i in torch.randperm(len(family), generator=generator).tolist()] for family in families.values()
    ]
    return [tuple(name for name in visit if name is not None) for visit in zip_longest(*orders)]


def _family(name: str) -> str:
    letters = re.match(r"[^\W\d_]+", name)
    return letters[0] if letters else name
