"""What the stages of one run share: the recipe, the folder, the data, the space, the predictors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from espalier.export.devices.base import Device, MeasureSpec
from espalier.nas.architecture import Architecture
from espalier.nas.cost.count import Cost
from espalier.nas.data import Batches, BatchFactory, Images, Splits, split
from espalier.nas.data.batches import EVALUATION_BATCH
from espalier.nas.device import accelerator
from espalier.nas.predictor import Predictor
from espalier.nas.progress import Track
from espalier.nas.run import RunFolder
from espalier.nas.seeds import seed_for
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.deployed import Deployed
from espalier.nas.task import Classification
from espalier.recipes.config.devices import open_device
from espalier.recipes.config.options import given_options
from espalier.recipes.config.registry import SPACES
from espalier.recipes.config.roles import make
from espalier.recipes.config.schema import Recipe
from espalier.recipes.engine.predictor_set import PredictorSet
from espalier.recipes.records.stages import Stages

if TYPE_CHECKING:
    from espalier.predictors.inherited import InheritedAccuracy
    from espalier.recipes.engine.budget import Budget
    from espalier.recipes.engine.deployment import Deployment
    from espalier.recipes.engine.supernet_store import TrainedSupernet

SCORE_IMAGES = 64
"""Images that zero-cost scores look at."""
CALIBRATION_IMAGES = 1000
"""Training images that batch-norm statistics are averaged over before an inherited evaluation."""


@dataclass
class Context:
    """One run in progress.

    Attributes:
        recipe: resolved and checked.
        run: the folder, owned by this process.
        track: shows progress.
        stages: results of the stages that are done.
        keys: cache keys of the stages, by name.
        study_key: that of the search, whatever its number of trials.
    """

    recipe: Recipe
    run: RunFolder
    track: Track
    stages: Stages
    keys: dict[str, str]
    study_key: str = ""

    @cached_property
    def device(self) -> torch.device:
        """Where torch computes."""
        return accelerator()

    @cached_property
    def splits(self) -> Splits:
        """The images of the recipe, divided."""
        pool, test = self.recipe.data.load(self.seed("limit"))
        return split(pool, test, self.recipe.data.split, seed=self.seed("split"))

    @cached_property
    def task(self) -> Classification:
        """How networks are judged."""
        return Classification(len(self.splits.classes))

    def task_with(self, label_smoothing: float) -> Classification:
        """The task with the targets of a training."""
        return Classification(len(self.splits.classes), label_smoothing)

    def cost(self, architecture: Architecture) -> Cost:
        """Params and MACs of an architecture's stand-alone network."""
        return self.predictors.counter(architecture)

    def is_affordable(self, architecture: Architecture) -> bool:
        """Whether an architecture keeps the limits on params and MACs, of the search and of the budget."""
        return all(limit.violation(getattr(self.cost(architecture), limit.name)) <= 0 for limit in self.recipe.limits)

    def seed(self, purpose: str) -> int:
        """A seed of the recipe's for one purpose; see `seed_for`."""
        return seed_for(self.recipe.seed, purpose)

    def generator(self, purpose: str) -> torch.Generator:
        """A new CPU generator for one purpose."""
        return torch.Generator().manual_seed(self.seed(purpose))

    @property
    def batches(self) -> BatchFactory:
        """Makes batches of the images, normalised and on the device."""
        return BatchFactory(self.splits.normalisation, self.device)

    def evaluation_batches(self, images: Images) -> Batches:
        """All images once, in order, unchanged, in batches of nearly one size."""
        return self.batches.evaluation(images)

    def mixed_batches(self, images: Images) -> Batches:
        """The same in an order drawn once, so that each batch has images of all classes, as its statistics need."""
        return self.evaluation_batches(images.sample(len(images), self.generator("mixed")))

    def new_space(self, seed: int = 0) -> SearchSpace:
        """The recipe's search space with fresh weights, on the CPU.

        Raises:
            UserError: the space does not take images of this size.
        """
        options = given_options(self.recipe.space)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed(f"weights {seed}"))
            space: SearchSpace = make(
                SPACES,
                self.recipe.space.name,
                self.splits.image_shape,
                len(self.splits.classes),
                where="space.name",
                **options,
            )
        return space

    @cached_property
    def space(self) -> SearchSpace:
        """The search space, for everything but its weights; with precision and sparsity where they are searched."""
        search = self.recipe.search
        if search is None or search.deploy is None:
            return self.new_space()
        return Deployed(self.new_space(), precision=search.deploy.precision, sparsity=search.deploy.sparsity)

    @cached_property
    def deployment(self) -> Deployment | None:
        """What precision and sparsity mean, where they are searched."""
        from espalier.recipes.engine.deployment import Deployment

        return Deployment(self) if isinstance(self.space, Deployed) else None

    @cached_property
    def supernets(self) -> list[TrainedSupernet]:
        """The trained supernets, on their device. Only after the stage `supernet`."""
        from espalier.recipes.engine.supernet_store import find

        found = self.stages.supernet
        return [find(self, part.name) for part in found.parts] if found else []

    @cached_property
    def predictors(self) -> PredictorSet:
        """The predictors that this recipe can use."""
        return PredictorSet(
            self.space,
            self._score_batch,
            seed=self.seed("score weights"),
            inherited=None if self.recipe.supernet is None else self._inherited,
            reference_seed=self.seed("reference"),
        )

    def _score_batch(self) -> tuple[Tensor, Tensor]:
        return self.batches.single(self.splits.train.sample(SCORE_IMAGES, self.generator("score batch")))

    def _inherited(self) -> Predictor:
        inherited = self.inherited
        return inherited if self.deployment is None else self.deployment.predictor(inherited)

    @cached_property
    def inherited(self) -> InheritedAccuracy:
        """The accuracy of networks of the supernets, dense and in full precision."""
        from espalier.predictors.inherited import InheritedAccuracy

        images = self.splits.train
        # Statistics are averaged over batches, each counting the same, so all must be of one size.
        size = min(EVALUATION_BATCH, len(images))
        count = min(CALIBRATION_IMAGES, len(images)) // size * size
        return InheritedAccuracy(
            [(supernet.region, supernet.space) for supernet in self.supernets],
            calibration=self.evaluation_batches(images.sample(count, self.generator("calibration"))),
            selection=self.evaluation_batches(self.splits.selection),
            task=self.task,
            images=len(self.splits.selection),
        )

    @cached_property
    def budget(self) -> Budget | None:
        """The limits that whatever is returned keeps, if the recipe has any."""
        from espalier.recipes.engine.budget import Budget

        return None if self.recipe.budget is None else Budget(self, self.recipe.budget)

    @property
    def quick_spec(self) -> MeasureSpec:
        """How candidates of the search are timed."""
        profile = self.recipe.profile
        return profile.spec(sessions=2, seconds=profile.search_seconds, min_runs=5)

    def measuring_device(self) -> Device:
        """The device that latency is measured on."""
        return open_device(self.recipe.profile.device, where="profile.device")
