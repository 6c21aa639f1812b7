"""What would stop a run later, found before anything is written: parts of a recipe that cannot be combined."""

from __future__ import annotations

import torch
from torch import nn

from espalier.export.devices.base import Device
from espalier.nas.choices import ElasticChoice, ValueChoice
from espalier.nas.data import Splits
from espalier.nas.errors import UserError
from espalier.nas.space import SearchSpace
from espalier.recipes.config.schema import Recipe
from espalier.recipes.engine.supernet_factory import SupernetFactory
from espalier.supernets.fewshot.tree import check_tree
from espalier.supernets.strategy import Strategy


def check_images(splits: Splits) -> None:
    """Raises UserError where there are too few images or classes to learn from."""
    for images in (splits.train, splits.architecture, splits.selection):
        if len(images) == 1 or (not len(images) and images is not splits.architecture):
            raise UserError("data", f"{len(images)} images are too few to learn from", code="too_few")
    if len(splits.classes) < 2:
        raise UserError("data", f"all images are of one class, {splits.classes[0]!r}", code="too_few")


def check_choices(recipe: Recipe, space: SearchSpace) -> None:
    """Raises UserError where the space is a single network, and a section needs something to choose among."""
    choices = space.choices()
    if any(len(choice.options) > 1 for choice in choices.values()):
        return
    for section in ("supernet", "search"):
        if getattr(recipe, section) is not None:
            offers = "".join(f"; {name!r} offers only {choice.options[0]!r}" for name, choice in choices.items())
            raise UserError(section, f"the space is a single network, there is nothing to find{offers}", code="too_few")


def check_convolutions(space: SearchSpace, device: torch.device) -> None:
    """Raises UserError for convolutions that torch cannot train on this device.

    On CPUs, in channels_last, their backward pass writes outside its memory (torch 2.14).
    """
    for name, layer in space.named_modules():
        if (
            device.type == "cpu"
            and isinstance(layer, nn.Conv2d)
            and layer.in_channels < 8
            and (layer.kernel_size, layer.stride) == ((1, 1), (2, 2))
        ):
            problem = f"{name} is a 1x1 convolution of stride 2 with {layer.in_channels} input channels"
            fix = "which torch cannot train on CPUs; use 8 channels or more"
            raise UserError("space", f"{problem}, {fix}", code="unsupported")


def check_device(recipe: Recipe, device: Device) -> None:
    """Raises UserError where the device does not answer, or has no such provider of ONNX Runtime."""
    if recipe.train is not None or recipe.measures_in_search:
        try:
            device.fingerprint(recipe.profile.provider)
        except UserError as error:
            raise (error.below("profile") if error.where == "provider" else error) from error


def check_supernet(recipe: Recipe, supernets: SupernetFactory, space: SearchSpace) -> None:
    """Raises UserError where the supernet cannot be trained, divided or selected from as the recipe says."""
    with torch.random.fork_rng():
        strategy = supernets.training().strategy  # rejects options that do not fit the space
    if supernets.settings.few_shot is not None:
        check_tree(space, supernets.settings.few_shot)
    methods = recipe.select.methods if recipe.select is not None else ()
    if "argmax" in methods:
        strategy.preferred()
    if "perturbation" in methods:
        _check_perturbation(strategy, space)


def _check_perturbation(strategy: Strategy, space: SearchSpace) -> None:
    where = "select.methods"
    if strategy.uses_cost:
        problem = f"perturbation ignores what networks cost, which {strategy.name} is told to count"
        raise UserError(where, problem, code="conflict", allowed=("argmax",))
    for choice in space.choices().values():
        if isinstance(choice, ValueChoice) and not isinstance(choice, ElasticChoice):
            problem = f"perturbation mixes options, and those of {choice.name!r} cannot be mixed"
            raise UserError(where, problem, code="unsupported")
