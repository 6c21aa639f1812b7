"""Supernets about to be trained: their strategy, their batches and what ends them early, as the recipe says."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from espalier.nas.data import Batches, BatchFactory, Images, Splits
from espalier.nas.device import place
from espalier.nas.seeds import Seeds
from espalier.nas.space import SearchSpace
from espalier.nas.task import Classification
from espalier.nas.training import TrainSettings
from espalier.recipes.config.options import given_options
from espalier.recipes.config.registry import STRATEGIES
from espalier.recipes.config.roles import load, make
from espalier.recipes.config.sections.supernet import SupernetSettings
from espalier.recipes.engine.spaces import SpaceFactory
from espalier.supernets.early_stop import EarlyStop
from espalier.supernets.effective_decay import EffectiveDecay
from espalier.supernets.strategy import Strategy, check_supports
from espalier.supernets.trainer import SupernetTraining

DIAGNOSIS_IMAGES = 1024
"""Of each kind, for a diagnosis."""


@dataclass(frozen=True)
class SupernetFactory:
    """Makes supernets and their trainings.

    Attributes:
        settings: the recipe's section `supernet`.
        target: of a strategy whose loss counts what networks cost, where the budget gives it.
        spaces: makes the space with fresh weights.
        splits: the images.
        batches: makes batches of them.
        device: where supernets are trained.
        seeds: of everything that is drawn.
    """

    settings: SupernetSettings
    target: float | None
    spaces: SpaceFactory
    splits: Splits
    batches: BatchFactory
    device: torch.device
    seeds: Seeds

    def strategy(self, space: SearchSpace, *, seed: int = 0) -> Strategy:
        """The recipe's strategy for a supernet, its first architecture parameters drawn from `seed`.

        Raises:
            UserError: it does not support a choice of the space, or an option does not fit the space.
        """
        options = self.settings.strategy
        given = given_options(options) | ({} if self.target is None else {"target": self.target})
        strategy_class = load(STRATEGIES, options.name, where="supernet.strategy")
        check_supports(strategy_class, space)
        with torch.random.fork_rng():
            torch.manual_seed(self.seeds(f"alphas {seed}"))
            strategy: Strategy = make(STRATEGIES, options.name, space, where="supernet.strategy", **given)
        return strategy

    def untrained(self) -> tuple[SearchSpace, Strategy]:
        """A supernet on the device, and its strategy."""
        space = self.spaces()
        place(space, self.device)
        return space, self.strategy(space)

    def training(self, *, seed: int = 0, epochs: int | None = None) -> SupernetTraining:
        """A supernet about to be trained, opened to the whole space.

        Args:
            seed: of its weights, batches and gates.
            epochs: over which its learning rate falls, instead of the recipe's.
        """
        space = self.spaces(seed)
        place(space, self.device)
        strategy = self.strategy(space, seed=seed)
        return self.training_of(
            space,
            strategy,
            self.settings if epochs is None else self.settings.model_copy(update={"epochs": epochs}),
            purpose=f"supernet {seed}",
            stop=self._stop(space, strategy),
        )

    def training_of(
        self,
        space: SearchSpace,
        strategy: Strategy,
        settings: TrainSettings,
        *,
        purpose: str,
        stop: EarlyStop | None = None,
        follows: int | None = None,
    ) -> SupernetTraining:
        """The training of a supernet on the `train` split, that of its strategy on the `architecture` split.

        Args:
            space: the supernet.
            strategy: how it is trained.
            settings: of the training.
            purpose: names the draws of batches, gates and noise, so that no two trainings share them.
            stop: see `EarlyStop`.
            follows: see `SupernetTraining`.
        """
        torch.manual_seed(self.seeds(f"{purpose} noise"))  # what layers draw; a checkpoint brings its own state
        generator = self.seeds.generator(f"{purpose} data")

        def batches(images: Images) -> Batches:
            return self.batches.training(images, settings.batch_size, generator, augment=settings.augment)

        learns = strategy.learns and len(self.splits.architecture)
        return SupernetTraining(
            space,
            strategy,
            settings,
            batches(self.splits.train),
            validation=batches(self.splits.architecture) if learns else None,
            task=Classification(len(self.splits.classes), settings.label_smoothing),
            generator=generator,
            seed=self.seeds(f"{purpose} paths"),
            stop=stop,
            follows=follows,
            penalty=EffectiveDecay(space, settings.weight_decay) if self.settings.decay == "effective" else None,
        )

    def diagnosis_batches(self, images: Images) -> Batches:
        """Some of the images in batches as large as in the training, not augmented and always the same."""
        drawn = images.sample(DIAGNOSIS_IMAGES, self.seeds.generator("diagnosis"))
        return self.batches.in_order(drawn, self.settings.batch_size, drop_last=True)

    def _stop(self, space: SearchSpace, strategy: Strategy) -> EarlyStop | None:
        settings = self.settings.stop
        if settings is None:
            return None
        images = self.splits.architecture
        if not strategy.learns or not len(images):  # `EarlyStop` rejects both before it looks at the images
            images = self.splits.train
        batch = next(iter(self.diagnosis_batches(images)))
        return EarlyStop(settings, space, strategy, batch, seed=self.seeds("stop"))
