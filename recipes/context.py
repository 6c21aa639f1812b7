"""What the stages of one run share: the recipe, the folder, the data, the space, the predictors."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nas.architecture import Architecture
from nas.cost import Cost
from nas.data import Augment, Batches, Images, Limit, Splits, load, split
from nas.device import accelerator, place
from nas.errors import UserError
from nas.objective import Constraint, Evaluator
from nas.predictor import Predictor
from nas.progress import Track
from nas.run import RunFolder
from nas.search.replay import VirtualClock, replay
from nas.space import SearchSpace
from nas.table import read_table
from nas.task import Classification
from predictors.surrogate import Surrogate
from recipes.components import COSTS, DEVICES, SPACES, STRATEGIES
from recipes.components import load as component
from recipes.predictor_set import PredictorSet
from recipes.schema import Recipe
from supernets.strategy import check_supports

EVALUATION_BATCH = 250
"""Images in a batch when nothing is learnt; large enough to keep a device busy, small enough for any memory."""
MEASURED = frozenset({"accuracy", "latency_ms"})
"""What a search can name that is no predictor."""
SCORE_IMAGES = 64
"""Images that zero-cost scores look at."""
CALIBRATION_IMAGES = 1000
"""Training images that batch-norm statistics are averaged over before an inherited evaluation."""


@dataclass
class Context:
    """One run in progress.

    Attributes:
        recipe: resolved and checked. run: the folder, owned by this process.
        track: shows progress. outputs: of the stages that are done, by name.
        keys: cache keys of the stages, by name. study_key: that of the search, whatever its number of trials.
    """

    recipe: Recipe
    run: RunFolder
    track: Track
    outputs: dict[str, Any]
    keys: dict[str, str]
    study_key: str = ""

    @cached_property
    def device(self) -> torch.device:
        """Where torch computes."""
        return accelerator()

    @cached_property
    def splits(self) -> Splits:
        """The images of the recipe, divided."""
        data = self.recipe.data
        limit = Limit(data.limit, self.seed("limit"))
        pool, test = load(data.source, path=data.path, test_path=data.test_path, size=data.size, limit=limit)
        return split(pool, test, data.split, seed=self.seed("split"))

    @cached_property
    def task(self) -> Classification:
        """How networks are judged."""
        return Classification(len(self.splits.classes))

    def task_with(self, label_smoothing: float) -> Classification:
        """The task with the targets of a training."""
        return Classification(len(self.splits.classes), label_smoothing)

    def check(self) -> None:
        """Look for what would stop the run later: data, space and names that do not go together.

        Raises:
            UserError: the first of them.
        """
        for images in (self.splits.train, self.splits.selection):
            if len(images) < 2:
                raise UserError("data", f"{len(images)} images are too few to learn from")
        if len(self.splits.classes) < 2:
            raise UserError("data", f"all images are of class {self.splits.classes[0]!r}, nothing to tell apart")
        space = (
            self.space
        )  # made here at the latest, so that it refuses images of a wrong size before anything is written
        if self.recipe.supernet is not None:
            strategy = component(STRATEGIES, self.recipe.supernet.strategy, where="supernet.strategy")
            check_supports(strategy(space), space)
        if self.recipe.rank is not None:
            from recipes.stages.rank import table_sample

            table_sample(self, self.recipe.rank)
        if self.recipe.search.replay is not None and len(self.replayed) < self.space.size:
            problem = f"the table has {len(self.replayed)} of the space's {self.space.size} architectures"
            raise UserError("search.replay.table", f"{problem}; a replay needs them all")

    def cost(self, architecture: Architecture) -> Cost:
        """Params and MACs of an architecture's stand-alone network."""
        return self.predictors.counter(architecture)

    def is_affordable(self, architecture: Architecture) -> bool:
        """Whether an architecture keeps the search's limits on params and MACs."""
        limits = [Constraint.parse(text) for text in self.recipe.search.constraints]
        return all(
            limit.violation(getattr(self.cost(architecture), limit.name)) <= 0
            for limit in limits
            if limit.name in COSTS
        )

    def seed(self, purpose: str) -> int:
        """A seed for one purpose (`split`, `paths`, ...), so that no two of them share their draws."""
        digest = hashlib.sha256(f"{self.recipe.seed}/{purpose}".encode()).digest()
        return int.from_bytes(digest[:4])

    def generator(self, purpose: str) -> torch.Generator:
        """A new CPU generator for one purpose."""
        return torch.Generator().manual_seed(self.seed(purpose))

    def evaluation_batches(self, images: Images) -> Batches:
        """All images once, in order, unchanged."""
        return Batches(images, EVALUATION_BATCH, mean=self.splits.mean, std=self.splits.std, device=self.device)

    def training_batches(
        self, images: Images, batch_size: int, augment: Augment, generator: torch.Generator
    ) -> Batches:
        """The images in a new order each epoch, changed at random; only full batches, if there is one."""
        return Batches(
            images,
            min(batch_size, len(images)),
            mean=self.splits.mean,
            std=self.splits.std,
            device=self.device,
            shuffle=True,
            augment=augment,
            generator=generator,
            drop_last=True,
        )

    def new_space(self) -> SearchSpace:
        """The recipe's search space with fresh weights, on the CPU.

        Raises:
            UserError: the space does not take images of this size.
        """
        options = self.recipe.space.model_dump(exclude={"name"})
        space_class = component(SPACES, self.recipe.space.name, where="space.name")
        with torch.random.fork_rng():
            torch.manual_seed(self.seed("weights"))
            space: SearchSpace = space_class(self.splits.image_shape, len(self.splits.classes), **options)
        return space

    @cached_property
    def space(self) -> SearchSpace:
        """The search space, for everything but its weights."""
        return self.new_space()

    @property
    def supernet_path(self) -> Any:
        """Where the weights of the trained supernet lie."""
        return self.run / "checkpoints" / f"supernet-{self.keys['supernet']}.safetensors"

    @cached_property
    def supernet(self) -> SearchSpace:
        """The trained supernet, on its device. Only after the stage `supernet`."""
        from nas.checkpoint import load_weights

        supernet = self.new_space()
        load_weights(self.supernet_path, supernet)
        place(supernet, self.device)
        return supernet

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
        images = self.splits.train
        chosen = torch.randperm(len(images), generator=self.generator("score batch"))[:SCORE_IMAGES]
        return next(iter(self.evaluation_batches(images.subset(chosen))))

    def _inherited(self) -> Predictor:
        from predictors.inherited import InheritedAccuracy

        images = self.splits.train
        order = torch.randperm(len(images), generator=self.generator("calibration"))
        # Statistics are averaged over batches, each counting the same, so all must be of one size.
        size = min(EVALUATION_BATCH, len(images))
        count = min(CALIBRATION_IMAGES, len(images)) // size * size
        return InheritedAccuracy(
            self.supernet,
            calibration=self.evaluation_batches(images.subset(order[:count])),
            selection=self.evaluation_batches(self.splits.selection),
            task=self.task,
            images=len(self.splits.selection),
        )

    def measuring_device(self) -> Any:
        """The device that latency is measured on."""
        return component(DEVICES, self.recipe.profile.device, where="profile.device")()

    def evaluators(self) -> dict[str, Evaluator]:
        """Everything that the search names, cheap ones first."""
        search = self.recipe.search
        names = dict.fromkeys([*search.named, *search.scores])
        evaluators = {}
        for name, predictor in self.predictors.make(set(names) - MEASURED).items():
            better = predictor.higher_is_better and name not in COSTS  # as objectives, costs are to fall
            evaluators[name] = Evaluator(name, "maximize" if better else "minimize", predictor)
        if "latency_ms" in names:
            evaluators["latency_ms"] = Evaluator("latency_ms", "minimize", self._latency())
        if "accuracy" in names:
            evaluators["accuracy"] = self._accuracy()
        return evaluators

    @cached_property
    def clock(self) -> Callable[[], float]:
        """Tells the seconds that the search's evaluations take: of the table that it replays, if it does."""
        return VirtualClock() if self.recipe.search.replay else time.perf_counter

    def surrogate(self) -> Surrogate | None:
        """The predictor that learns from the search, if the recipe asks for one."""
        search = self.recipe.search
        if not search.learns:
            return None
        return Surrogate(
            self.space,
            model=search.surrogate.model,
            encodings=search.surrogate.encodings,
            scores=list(self.predictors.make(search.surrogate.scores).values()),
            unit="",
            seed=self.seed("surrogate"),
        )

    @cached_property
    def replayed(self) -> dict[Architecture, tuple[float, float]]:
        """Accuracy and seconds of each architecture of the table that the search replays.

        Raises:
            UserError: the table cannot be used.
        """
        settings = self.recipe.search.replay
        assert settings is not None
        columns = [settings.accuracy, *([settings.seconds] if settings.seconds else [])]
        table = read_table(settings.table, self.space, columns, where="search.replay.table")
        return {a: (values[0], values[1] if settings.seconds else 0.0) for a, values in table.items()}

    def _accuracy(self) -> Evaluator:
        if isinstance(self.clock, VirtualClock):
            return replay("accuracy", "maximize", self.replayed, self.clock)
        name = self.recipe.search.accuracy
        return Evaluator("accuracy", "maximize", self.predictors.make([name])[name])

    def _latency(self) -> Any:
        from export.devices.base import MeasureSpec
        from export.latency import MeasuredLatency

        profile = self.recipe.profile
        spec = MeasureSpec(
            threads=profile.threads, batch=profile.batch, sessions=2, seconds=profile.search_seconds, min_runs=5
        )
        return MeasuredLatency(self.space, self.measuring_device(), spec, self.run.path)
