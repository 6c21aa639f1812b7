"""Where the layer choices of a space are applied, and the shapes of their inputs and outputs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from espalier.nas.choices import InputChoice, LayerChoice
from espalier.nas.errors import UserError
from espalier.nas.gates import Gate
from espalier.nas.hashing import short_hash
from espalier.nas.space import SearchSpace

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class LayerSite:
    """A place where a layer choice is applied; a choice that cells share has a site in each of them.

    Attributes:
        choice: the choice's name.
        path: the module's path inside the space.
        input_shape: `(channels, height, width)` of one image.
        output_shape: likewise; the same for every option.
    """

    choice: str
    path: str
    input_shape: Shape
    output_shape: Shape


def layer_sites(space: SearchSpace) -> list[LayerSite]:
    """Every site of every layer choice, in the order of the forward pass. Runs on the meta device only.

    Raises:
        UserError: the space has choices of other kinds, which change the operators themselves.
    """
    gates = {name: _passing(choice) for name, choice in space.choices().items()}
    meta = copy.deepcopy(space).to("meta").eval()
    found: list[LayerSite] = []

    def record(path: str) -> Any:
        def hook(module: LayerChoice, args: tuple[Tensor, Any], output: Tensor) -> None:
            found.append(LayerSite(module.name, path, _shape(args[0]), _shape(output)))

        return hook

    for path, module in meta.named_modules():
        if isinstance(module, LayerChoice):
            module.register_forward_hook(record(path))
    with torch.no_grad():
        meta(torch.empty((1, *space.input_shape), device="meta"), gates)
    return found


def layer_fingerprint(space: SearchSpace) -> str:
    """The `short_hash` of the sites of a space's layer choices: of its sizes, not of its weights."""
    shapes = [(site.choice, site.input_shape, site.output_shape) for site in layer_sites(space)]
    return short_hash(repr(shapes))


def first_nonzero(choice: LayerChoice) -> int:
    """The first option that lets something through; 0 if none does."""
    return next((index for index in range(len(choice.options)) if not choice.is_zero(index)), 0)


def full_gates(space: SearchSpace) -> dict[str, int]:
    """Gates of a network in which every part is present: no zero operations, the largest depths."""
    return {
        name: first_nonzero(choice) if isinstance(choice, LayerChoice) else len(choice.options) - 1
        for name, choice in space.choices().items()
    }


def _passing(choice: Any) -> Gate:
    if isinstance(choice, LayerChoice):
        return first_nonzero(choice)
    if isinstance(choice, InputChoice):
        return choice.open(range(len(choice.options)))
    problem = f"costs are added up operator by operator, but the {type(choice).__name__} {choice.name!r} changes them"
    raise UserError("space", problem, code="unsupported")


def _shape(x: Tensor) -> Shape:
    channels, height, width = x.shape[1:]
    return channels, height, width
