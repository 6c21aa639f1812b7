"""The supernets of a run: one, or one for each part of a divided space. How they are made, kept and found again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from espalier.nas.checkpoint import load_state, load_weights, save_state, save_weights
from espalier.nas.data import Batches
from espalier.nas.device import place
from espalier.nas.region import Region
from espalier.nas.space import SearchSpace
from espalier.nas.training import TrainSettings
from espalier.recipes.config.options import given_options
from espalier.recipes.config.registry import STRATEGIES
from espalier.recipes.config.roles import load, make
from espalier.recipes.engine.strategy_target import target_of
from espalier.supernets.early_stop import EarlyStop
from espalier.supernets.effective_decay import EffectiveDecay
from espalier.supernets.strategy import Strategy, check_supports
from espalier.supernets.trainer import SupernetTraining

if TYPE_CHECKING:
    from espalier.nas.data import Images
    from espalier.recipes.engine.context import Context

DIAGNOSIS_IMAGES = 1024
"""Of each kind, for a diagnosis."""


@dataclass(frozen=True, eq=False)
class TrainedSupernet:
    """Attributes: name: `root`, or `root.0.1` of a divided space. space: with its weights. strategy: as it ended."""

    name: str
    space: SearchSpace
    strategy: Strategy

    @property
    def region(self) -> Region:
        """The part of the space that it was trained for."""
        return self.strategy.region


def new_strategy(context: Context, space: SearchSpace, *, seed: int = 0) -> Strategy:
    """The recipe's strategy for a supernet, its first architecture parameters drawn from `seed`.

    Raises:
        UserError: it cannot open a choice of the space, or an option does not go with it (a cost table of another).
    """
    assert context.recipe.supernet is not None
    options = context.recipe.supernet.strategy
    target = target_of(context.recipe)
    given = given_options(options) | ({} if target is None else {"target": target})
    strategy_class = load(STRATEGIES, options.name, where="supernet.strategy")
    check_supports(strategy_class, space)
    with torch.random.fork_rng():
        torch.manual_seed(context.seed(f"alphas {seed}"))
        strategy: Strategy = make(STRATEGIES, options.name, space, where="supernet.strategy", **given)
    return strategy


def new_training(context: Context, *, seed: int = 0, epochs: int | None = None) -> SupernetTraining:
    """A supernet about to be trained, opened to the whole space.

    Args:
        seed: of its weights, batches and gates.
        epochs: over which its learning rate falls, instead of the recipe's.
    """
    settings = context.recipe.supernet
    assert settings is not None
    space = context.new_space(seed)
    place(space, context.device)
    strategy = new_strategy(context, space, seed=seed)
    return training_of(
        context,
        space,
        strategy,
        settings if epochs is None else settings.model_copy(update={"epochs": epochs}),
        purpose=f"supernet {seed}",
        stop=_stop(context, space, strategy),
    )


def training_of(
    context: Context,
    space: SearchSpace,
    strategy: Strategy,
    settings: TrainSettings,
    *,
    purpose: str,
    stop: EarlyStop | None = None,
    follows: int | None = None,
) -> SupernetTraining:
    """The training of a supernet on the `train` split, its strategy's on the `architecture` split.

    Args:
        purpose: what the draws of batches, gates and noise are for, so that no two trainings share them.
        stop: see `EarlyStop`.
        follows: see `SupernetTraining`.
    """
    supernet = context.recipe.supernet
    assert supernet is not None
    torch.manual_seed(context.seed(f"{purpose} noise"))  # what layers draw; a checkpoint brings its own state
    generator = context.generator(f"{purpose} data")

    def batches(part: str) -> Batches:
        images = getattr(context.splits, part)
        return context.batches.training(images, settings.batch_size, generator, augment=settings.augment)

    return SupernetTraining(
        space,
        strategy,
        settings,
        batches("train"),
        validation=batches("architecture") if strategy.learns and len(context.splits.architecture) else None,
        task=context.task_with(settings.label_smoothing),
        generator=generator,
        seed=context.seed(f"{purpose} paths"),
        stop=stop,
        follows=follows,
        penalty=EffectiveDecay(space, settings.weight_decay) if supernet.decay == "effective" else None,
    )


def plain_batches(context: Context, images: Images) -> Batches:
    """Some images in batches as large as in the supernet's training, but not augmented and always the same."""
    assert context.recipe.supernet is not None
    drawn = images.sample(DIAGNOSIS_IMAGES, context.generator("diagnosis"))
    return context.batches.in_order(drawn, context.recipe.supernet.batch_size, drop_last=True)


def _stop(context: Context, space: SearchSpace, strategy: Strategy) -> EarlyStop | None:
    settings = context.recipe.supernet.stop if context.recipe.supernet else None
    if settings is None:
        return None
    images = context.splits.architecture
    if not strategy.learns or not len(images):  # both are refused, in this order, before anything is looked at
        images = context.splits.train
    return EarlyStop(settings, space, strategy, next(iter(plain_batches(context, images))), seed=context.seed("stop"))


def keep(context: Context, name: str, training: SupernetTraining) -> None:
    """Write a trained supernet to `checkpoints/`: its weights, and what its strategy has learnt."""
    weights, state = _files(context, name)
    save_weights(weights, training.space)
    save_state(state, training.strategy.state_dict())


def find(context: Context, name: str) -> TrainedSupernet:
    """A supernet that `keep` wrote, on the device.

    Raises:
        UserError: a file is missing, damaged or of another space.
    """
    weights, state = _files(context, name)
    space = context.new_space()
    load_weights(weights, space)
    place(space, context.device)
    strategy = new_strategy(context, space)
    strategy.load_state_dict(load_state(state))
    return TrainedSupernet(name, space, strategy)


def _files(context: Context, name: str) -> tuple[Path, Path]:
    folder, key = context.run / "checkpoints", context.keys["supernet"]
    return folder / f"supernet-{key}-{name}.safetensors", folder / f"strategy-{key}-{name}.pt"
