"""Makes what the stages of one run use: each service once, when it is first needed, from no more than it uses.

This is the one place that knows the whole run. Stages and services know only their arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from torch import Tensor

from espalier.export.devices.base import Device, MeasureSpec
from espalier.export.latency import MeasuredLatency
from espalier.nas.architecture import Architecture
from espalier.nas.data import BatchFactory, Splits, split
from espalier.nas.device import accelerator
from espalier.nas.measurement import Measurement
from espalier.nas.predictor import Predictor
from espalier.nas.progress import Track, silent
from espalier.nas.run import RunFolder
from espalier.nas.seeds import Seeds
from espalier.nas.space import SearchSpace
from espalier.nas.spaces.deployed import Deployed
from espalier.predictors.inherited import InheritedAccuracy
from espalier.recipes.config.devices import open_device
from espalier.recipes.config.schema import Recipe
from espalier.recipes.config.sections.search import RecipeSearchSettings
from espalier.recipes.config.sections.train import FinalTrainSettings
from espalier.recipes.engine.budget import Budget
from espalier.recipes.engine.cache_keys import Plan, networks_key, plan
from espalier.recipes.engine.deployment import Deployment
from espalier.recipes.engine.inherited import inherited_accuracy
from espalier.recipes.engine.latency_cache import Latencies
from espalier.recipes.engine.latency_learner import LatencyLearnerFactory, MacsOf
from espalier.recipes.engine.network_trainer import NetworkTrainer
from espalier.recipes.engine.predictor_set import PredictorSet
from espalier.recipes.engine.search_setup import SearchSetup
from espalier.recipes.engine.spaces import SpaceFactory
from espalier.recipes.engine.strategy_cost import target_of
from espalier.recipes.engine.supernet_factory import SupernetFactory
from espalier.recipes.engine.supernet_store import SupernetStore
from espalier.recipes.records.stages import Stages

SCORE_IMAGES = 64
"""Images that zero-cost scores look at."""


class Assembly:
    """The services of one run.

    Attributes:
        recipe: resolved and checked.
        run: the run folder.
        track: shows progress.
        stages: results of the stages that have finished; whoever runs a stage extends them.

    Args:
        keys: cache keys of the stages; those of the recipe's plan by default.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        track: Track = silent,
        *,
        stages: Stages | None = None,
        keys: Mapping[str, str] | None = None,
    ) -> None:
        self.recipe, self.run, self.track = recipe, run, track
        self.stages = stages or Stages()
        self._keys = keys

    # What a run is about: its images, its randomness, its space.

    @cached_property
    def seeds(self) -> Seeds:
        """All seeds of the run."""
        return Seeds(self.recipe.seed)

    @cached_property
    def splits(self) -> Splits:
        """The images, divided."""
        pool, test = self.recipe.data.load(self.seeds("limit"))
        return split(pool, test, self.recipe.data.split, seed=self.seeds("split"))

    @cached_property
    def plan(self) -> Plan:
        """The stages and their cache keys."""
        return plan(self.recipe, self.splits.fingerprint)

    @property
    def keys(self) -> Mapping[str, str]:
        """Cache keys of the stages, by name."""
        return self.plan.keys if self._keys is None else self._keys

    @cached_property
    def device(self) -> torch.device:
        """Where torch computes."""
        return accelerator()

    @cached_property
    def batches(self) -> BatchFactory:
        """Makes batches of the images, normalised and on the device."""
        return BatchFactory(self.splits.normalisation, self.device)

    @cached_property
    def spaces(self) -> SpaceFactory:
        """Makes the space with fresh weights."""
        return SpaceFactory(self.recipe.space, self.splits.image_shape, len(self.splits.classes), self.seeds)

    @cached_property
    def space(self) -> SearchSpace:
        """The search space, for everything but its weights; with precision and sparsity where they are searched."""
        search = self.recipe.search
        if search is None or search.deploy is None:
            return self.spaces()
        return Deployed(self.spaces(), precision=search.deploy.precision, sparsity=search.deploy.sparsity)

    # What is known of architectures without training them.

    @cached_property
    def predictors(self) -> PredictorSet:
        """The predictors that the recipe can use."""
        return PredictorSet(
            self.space,
            self._score_batch,
            seed=self.seeds("score weights"),
            inherited=None if self.supernets is None else self._inherited_as_deployed,
            reference_seed=self.seeds("reference"),
        )

    def _score_batch(self) -> tuple[Tensor, Tensor]:
        return self.batches.single(self.splits.train.sample(SCORE_IMAGES, self.seeds.generator("score batch")))

    def is_affordable(self, architecture: Architecture) -> bool:
        """Whether an architecture is within the limits on params and MACs, of the search and of the budget."""
        count, limits = (
            self.predictors.counter,
            self.recipe.limits,
        )  # counting builds the network: only where it decides
        return all(limit.violation(getattr(count(architecture), limit.name)) <= 0 for limit in limits)

    # Supernets.

    @cached_property
    def supernets(self) -> SupernetFactory | None:
        """Makes supernets about to be trained, if the recipe has a section `supernet`."""
        if self.recipe.supernet is None:
            return None
        return SupernetFactory(
            self.recipe.supernet,
            target_of(self.recipe),
            self.spaces,
            self.splits,
            self.batches,
            self.device,
            self.seeds,
        )

    def store(self, supernets: SupernetFactory) -> SupernetStore:
        """The trained supernets of the run."""
        return SupernetStore(self.run / "checkpoints", self.keys["supernet"], supernets)

    @cached_property
    def inherited(self) -> InheritedAccuracy:
        """The accuracy of networks of the supernets, dense and in full precision. Only after the stage `supernet`."""
        supernets, found = self.supernets, self.stages.supernet
        trained = [] if supernets is None or found is None else map(self.store(supernets).find, found.names)
        return inherited_accuracy(trained, self.splits, self.batches, self.seeds)

    def _inherited_as_deployed(self) -> Predictor:
        return self.inherited if self.deployment is None else self.deployment.predictor(self.inherited)

    # Latency.

    def open_device(self) -> Device:
        """Open the device that latency is measured on."""
        return open_device(self.recipe.profile.device, where="profile.device")

    @cached_property
    def search_device(self) -> Device:
        """The same, opened once, for candidates of the search."""
        return self.open_device()

    def close_device(self) -> None:
        """Close the device if it is open; it opens again when it is next asked for something."""
        if "search_device" in vars(self):
            self.search_device.close()

    def _device_id(self) -> str:
        """The lasting part of the device's fingerprint."""
        return str(self.search_device.fingerprint(self.recipe.profile.provider)["id"])

    @cached_property
    def deployment(self) -> Deployment | None:
        """Writes candidates as they will be deployed, where precision and sparsity are searched."""
        if not isinstance(self.space, Deployed):
            return None
        return Deployment(
            self.space,
            self.splits,
            self.batches,
            generator=self.seeds.generator("int8"),
            device=lambda: self.search_device,
            provider=self.recipe.profile.provider,
            folder=self.run.path,
        )

    @cached_property
    def timer(self) -> Callable[[Architecture, MeasureSpec], Measurement]:
        """Times candidates with fresh weights."""
        if self.deployment is not None:
            return self.deployment.latency
        return MeasuredLatency(self.space, lambda: self.search_device, self.run.path)

    @cached_property
    def budget(self) -> Budget | None:
        """The limits that everything returned meets, if the recipe has any."""
        settings, profile = self.recipe.budget, self.recipe.profile
        if settings is None:
            return None
        macs = MacsOf(self.space, self.predictors.counter)
        seed = self.seeds("latency predictor")
        networks = networks_key(self.recipe, self.splits.image_shape, len(self.splits.classes))
        latencies = Latencies(
            self.timer,
            lambda: f"{self._device_id()} {networks}",
            {"quick": profile.search_spec(), "thorough": profile.spec()},
            LatencyLearnerFactory(settings, self.space, macs, self._device_id, seed),
            self.run / "latencies.json",
        )
        return Budget(
            settings,
            self.recipe.limits,
            space=self.space,
            counter=self.predictors.counter,
            macs=macs,
            latencies=latencies,
            seeds=self.seeds,
            not_measured=lambda reason: self.run.log("not measured", reason=reason),
        )

    # The search, and the training of what it found.

    def search_setup(self, settings: RecipeSearchSettings) -> SearchSetup:
        """What the search asks about each candidate; its settings have the budget's limits among the constraints."""
        spec = self.recipe.profile.search_spec()
        costs = {} if self.recipe.budget is None else self.recipe.budget.costs
        constraints = (*settings.constraints, *(f"{name} <= {limit!r}" for name, limit in costs.items()))
        return SearchSetup(
            settings.model_copy(update={"constraints": constraints}),
            self.space,
            self.predictors,
            limits=self.recipe.limits,
            cascade=None if self.budget is None else self.budget.cascade("quick"),
            latency=lambda architecture: self.timer(architecture, spec),
            size_bytes=None if self.deployment is None else self.deployment.size_bytes,
            seed=self.seeds("surrogate"),
        )

    def trainer(self, settings: FinalTrainSettings) -> NetworkTrainer:
        """Trains architectures alone."""
        return NetworkTrainer(
            settings,
            self.space,
            self.splits,
            self.batches,
            self.device,
            self.deployment,
            self.seeds,
            self.run,
            self.keys["train"],
            self.track,
        )
