"""Runs a recipe: its stages in order, each skipped if it has finished before with the same inputs."""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from espalier.nas.errors import UserError
from espalier.nas.files import write_json
from espalier.nas.progress import Track
from espalier.nas.run import RunFolder
from espalier.nas.training import Diverged
from espalier.recipes.config.schema import Recipe
from espalier.recipes.engine.cache_keys import Stage, plan
from espalier.recipes.engine.context import Context
from espalier.recipes.engine.environment import environment
from espalier.recipes.engine.preflight import check
from espalier.recipes.engine.run_folders import remember
from espalier.recipes.records.stages import Stages, finished_stage, write_stage


def run_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    overrides: Sequence[str] = (),
    track: Track,
    announce: Callable[[str], None],
) -> Path:
    """Run what is not done yet, then write the report.

    Args:
        recipe: what to run.
        folder: the run folder, new or of an earlier run of the recipe.
        overrides: those in `recipe`, kept for when the run is resumed.
        track: shows progress.
        announce: told what happens, a line at a time.

    Returns:
        The path of the report.

    Raises:
        UserError: bad input of any kind; nothing is written before the data and the space have been checked.
    """
    from espalier.nas.search.storage import open_storage
    from espalier.recipes.report import write_report

    context = new_context(recipe, RunFolder(folder), track)
    announce(f"data: reading {recipe.data.source}")
    stages = plan(context)
    check(context)
    with context.run.lock() as run:
        if recipe.search is not None and recipe.search.storage is not None:
            open_storage(recipe.search.storage, run / "study.journal")  # rather now than after the supernet
        remember(run.path, recipe, overrides)
        write_json(run / "environment.json", environment())
        run.log("start", keys=context.keys)
        run.forget_all_but(context.keys)
        for stage in stages:
            result = finished_stage(run, stage.name, context.keys[stage.name])
            if result is None:
                started = time.perf_counter()
                result = _run_stage(context, stage)
                write_stage(run, stage.name, context.keys[stage.name], result)
                seconds = time.perf_counter() - started
                run.log("finished", stage=stage.name, seconds=round(seconds, 2))
                announce(f"{stage.name}: done in {seconds:.1f} s")
            else:
                announce(f"{stage.name}: done before")
            _tidy(run.path / "checkpoints", stage, context.keys[stage.name])
            context.stages = context.stages.extended(stage.name, result)
        return write_report(run.path)


def _run_stage(context: Context, stage: Stage) -> Any:
    """The stage's result; what layers draw on its way from torch's global generator is the recipe's own."""
    with torch.random.fork_rng():
        torch.manual_seed(context.seed(f"stage {stage.name}"))
        try:
            return importlib.import_module(f"espalier.recipes.engine.stages.{stage.name}").run(context)
        except Diverged as error:
            raise UserError(f"{stage.name}.lr", str(error)) from error


def _tidy(checkpoints: Path, stage: Stage, key: str) -> None:
    """Remove what a finished stage went on from, and what is left of supernets that the recipe no longer means."""
    for path in checkpoints.glob(f"{stage.name}-*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix == ".pt":
            path.unlink()
    if stage.name == "supernet":
        for path in [*checkpoints.glob("supernet-*"), *checkpoints.glob("strategy-*")]:
            if path.name.split("-")[1].split(".")[0] != key:
                path.unlink()


def new_context(recipe: Recipe, run: RunFolder, track: Track) -> Context:
    """A context in which nothing has been done yet."""
    return Context(recipe, run, track, stages=Stages(), keys={})
