"""Calls each stage of a run with its section of the recipe, the results that it uses and its services."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from espalier.recipes.config.sections.rank import RankSettings
from espalier.recipes.config.sections.search import RecipeSearchSettings
from espalier.recipes.config.sections.select import SelectSettings
from espalier.recipes.config.sections.train import FinalTrainSettings
from espalier.recipes.engine.assemble import Assembly
from espalier.recipes.engine.deployment import check_deploy
from espalier.recipes.engine.final_choice import choose
from espalier.recipes.engine.preflight import (
    check_choices,
    check_convolutions,
    check_device,
    check_images,
    check_supernet,
)
from espalier.recipes.engine.ranking.sample import Sample, draw_sample
from espalier.recipes.engine.run_folders import STUDY
from espalier.recipes.engine.sizes import check_batch_memory, check_space_memory
from espalier.recipes.engine.stages import data, export, profile, rank, search, select, supernet, test, train
from espalier.recipes.engine.strategy_cost import check_cost_table
from espalier.recipes.engine.supernet_factory import SupernetFactory
from espalier.recipes.records.networks import TrainResult
from espalier.recipes.records.ranking import RankResult
from espalier.recipes.records.search import SearchResult, SelectResult
from espalier.recipes.records.supernet import SupernetResult


class Pipeline:
    """The stages of one run, ready to be called.

    Args:
        assembly: of the run.
    """

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = assembly

    def run(self, stage: str) -> Any:
        """The result of one stage; those that it uses must have finished."""
        return self._calls()[stage]()

    def check(self) -> None:
        """Find what would stop the run later, before anything is written.

        Raises:
            UserError: the first problem.
        """
        parts, recipe = self.assembly, self.assembly.recipe
        from espalier.nas.search.storage import check_storage

        check_images(parts.splits)
        check_space_memory(parts.spaces)
        check_choices(recipe, parts.space)  # rejects images of a wrong size
        check_convolutions(parts.space, parts.device)
        check_deploy(recipe)
        check_batch_memory(parts)
        check_device(recipe, parts.search_device)
        if recipe.search is not None and recipe.search.storage is not None:
            check_storage(recipe.search.storage)
        if parts.supernets is not None:
            check_supernet(recipe, parts.supernets, parts.space)
            check_cost_table(parts.supernets.settings.strategy, recipe.profile, parts.open_device)
        if recipe.rank is not None:
            self._sample(recipe.rank)
        if parts.budget is not None:
            parts.budget.check()
        if recipe.search is not None:
            parts.search_setup(recipe.search).check()
        parts.close_device()  # it is used again after hours of training

    def _calls(self) -> dict[str, Callable[[], object]]:
        """A call of each stage that the recipe has, by name."""
        recipe, supernets = self.assembly.recipe, self.assembly.supernets
        calls: dict[str, Callable[[], object]] = {"data": partial(data.run, self.assembly.splits)}
        if supernets is not None:
            calls["supernet"] = partial(self._supernet, supernets)
        if recipe.rank is not None:
            calls["rank"] = partial(self._rank, recipe.rank)
        if recipe.select is not None and supernets is not None and self.assembly.stages.supernet is not None:
            calls["select"] = partial(self._select, recipe.select, supernets, self.assembly.stages.supernet)
        if recipe.search is not None:
            calls["search"] = partial(self._search, recipe.search)
        if recipe.train is not None:
            calls["train"] = partial(self._train, recipe.train)
            calls |= {"export": self._export, "profile": self._profile, "test": self._test}
        return calls

    def _supernet(self, supernets: SupernetFactory) -> SupernetResult:
        parts = self.assembly
        return supernet.run(
            supernets.settings,
            space=parts.space,
            supernets=supernets,
            store=parts.store(supernets),
            splits=parts.splits,
            seeds=parts.seeds,
            run=parts.run,
            key=parts.keys["supernet"],
            track=parts.track,
        )

    def _rank(self, settings: RankSettings) -> RankResult:
        parts = self.assembly
        return rank.run(
            settings,
            self._sample(settings),
            predictors=parts.predictors,
            bootstrap_seed=parts.seeds("bootstrap"),
            track=parts.track,
        )

    def _sample(self, settings: RankSettings) -> Sample:
        return draw_sample(
            settings.table,
            self.assembly.space,
            settings.target,
            settings.samples,
            unique=settings.unique,
            seed=self.assembly.seeds("rank"),
            prefix="rank.",
        )

    def _select(self, settings: SelectSettings, supernets: SupernetFactory, trained: SupernetResult) -> SelectResult:
        parts = self.assembly
        images = parts.splits.selection
        mixed = images.sample(len(images), parts.seeds.generator("mixed"))  # images of all classes in each batch
        return select.run(
            settings,
            trained,
            space=parts.space,
            supernets=supernets,
            store=parts.store(supernets),
            inherited=parts.predictors.make(["inherited"])["inherited"],
            selection=parts.batches.evaluation(mixed),
            budget=parts.budget,
            seeds=parts.seeds,
            run=parts.run,
            key=parts.keys["select"],
            track=parts.track,
        )

    def _search(self, settings: RecipeSearchSettings) -> SearchResult:
        from espalier.nas.search.storage import study_in_use

        parts, setup = self.assembly, self.assembly.search_setup(settings)
        study = parts.plan.study_key
        if settings.storage is not None:
            study = f"{parts.run.id}-{study}"  # a database has studies of many runs
        with study_in_use(settings.storage, study):
            return search.run(
                setup.settings,
                space=parts.space,
                evaluators=setup.evaluators(),
                surrogate=setup.surrogate(),
                cascade=setup.cascade,
                is_affordable=parts.is_affordable,
                clock=setup.clock,
                journal=parts.run / STUDY,
                study=study,
                seed=parts.seeds("search"),
                track=parts.track,
            )

    def _train(self, settings: FinalTrainSettings) -> TrainResult:
        parts = self.assembly
        predictors = parts.predictors.make(settings.predictors)
        chosen = choose(
            settings,
            parts.stages.select,
            parts.stages.search,
            space=parts.space,
            is_affordable=parts.is_affordable,
            budget=parts.budget,
            seeds=parts.seeds,
        )
        return train.run(
            chosen,
            trainer=parts.trainer(settings),
            space=parts.space,
            predictors=predictors,
            counter=parts.predictors.counter,
            selection_images=len(parts.splits.selection),
            run=parts.run,
        )

    def _export(self) -> object:
        parts = self.assembly
        return export.run(
            parts.stages.networks,
            space=parts.space,
            splits=parts.splits,
            deployment=parts.deployment,
            run=parts.run,
            track=parts.track,
        )

    def _profile(self) -> object:
        parts, budget = self.assembly, self.assembly.recipe.budget
        return profile.run(
            parts.recipe.profile,
            parts.stages.networks,
            None if budget is None else budget.latency_ms,
            open_device=parts.open_device,
            run=parts.run,
            track=parts.track,
        )

    def _test(self) -> object:
        parts = self.assembly
        return test.run(
            parts.stages.networks,
            images=parts.splits.final_test(),
            space=parts.space,
            batches=parts.batches,
            device=parts.device,
            deployment=parts.deployment,
            run=parts.run,
            bootstrap_seed=parts.seeds("bootstrap"),
        )
