"""What would stop a run later, looked for before anything is written: parts of a recipe that do not go together."""

from __future__ import annotations

import torch
from torch import nn

from espalier.nas.choices import ElasticChoice, ValueChoice
from espalier.nas.errors import UserError
from espalier.recipes.config.schema import SupernetSettings
from espalier.recipes.engine.context import Context
from espalier.recipes.engine.deployment import check_deploy
from espalier.recipes.engine.search_setup import SearchParts
from espalier.recipes.engine.stages.rank import table_sample
from espalier.recipes.engine.strategy_cost import check_cost_table
from espalier.recipes.engine.supernet_store import new_training
from espalier.supernets.fewshot.tree import check_tree
from espalier.supernets.strategy import Strategy


def check(context: Context) -> None:
    """Raises UserError, the first of them."""
    recipe = context.recipe
    _check_images(context)
    _check_choices(context)  # refuses images of a wrong size
    _check_convolutions(context)
    check_deploy(recipe)
    if recipe.supernet is not None:
        _check_supernet(context, recipe.supernet)
    if recipe.rank is not None:
        table_sample(context, recipe.rank)
    if context.budget is not None:
        context.budget.check()
    if recipe.search is not None:
        SearchParts(context, recipe.search).check()


def _check_images(context: Context) -> None:
    splits = context.splits
    for images in (splits.train, splits.architecture, splits.selection):
        if len(images) == 1 or (not len(images) and images is not splits.architecture):
            raise UserError("data", f"{len(images)} images are too few to learn from")
    if len(splits.classes) < 2:
        raise UserError("data", f"all images are of class {splits.classes[0]!r}, nothing to tell apart")


def _check_choices(context: Context) -> None:
    """A network alone can be trained; to choose, or to learn to, takes two."""
    choices = context.space.choices()
    if any(len(choice.options) > 1 for choice in choices.values()):
        return
    for section in ("supernet", "search"):
        if getattr(context.recipe, section) is not None:
            offers = "".join(f"; {name!r} offers only {choice.options[0]!r}" for name, choice in choices.items())
            raise UserError(section, f"the space is a single network, there is nothing to find{offers}")


def _check_convolutions(context: Context) -> None:
    """On CPUs, in channels_last, the backward pass of such a convolution writes outside its memory (torch 2.14)."""
    for name, layer in context.space.named_modules():
        if (
            context.device.type == "cpu"
            and isinstance(layer, nn.Conv2d)
            and layer.in_channels < 8
            and (layer.kernel_size, layer.stride) == ((1, 1), (2, 2))
        ):
            problem = f"{name} is a 1x1 convolution of stride 2 and {layer.in_channels} input channels"
            raise UserError("space", f"{problem}, which torch cannot train on CPUs; from 8 on it can: more channels")


def _check_supernet(context: Context, settings: SupernetSettings) -> None:
    with torch.random.fork_rng():
        strategy = new_training(context).strategy  # refuses what does not go together
    check_cost_table(context, settings.strategy)
    if settings.few_shot is not None:
        check_tree(context.space, settings.few_shot)
    methods = context.recipe.select.methods if context.recipe.select is not None else ()
    if "argmax" in methods:
        strategy.preferred()
    if "perturbation" in methods:
        _check_perturbation(context, strategy)


def _check_perturbation(context: Context, strategy: Strategy) -> None:
    where = "select.methods"
    if strategy.uses_cost:
        problem = f"perturbation does not look at what networks cost, as {strategy.name} is told to"
        raise UserError(where, problem, allowed=("argmax",))
    for choice in context.space.choices().values():
        if isinstance(choice, ValueChoice) and not isinstance(choice, ElasticChoice):
            raise UserError(where, f"perturbation mixes options, and those of {choice.name!r} cannot be mixed")
