"""Runs a recipe: its stages in order, each skipped if it has finished before with the same inputs."""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nas.errors import UserError
from nas.files import write_json
from nas.progress import Track
from nas.run import RunFolder
from nas.training import Diverged
from recipes.context import Context
from recipes.environment import environment
from recipes.folders import remember
from recipes.plan import plan
from recipes.schema import Recipe


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
        recipe: what to run. folder: the run folder, new or of an earlier run of the recipe.
        overrides: those in `recipe`, kept for when the run is resumed.
        track: shows progress. announce: told what happens, a line at a time.

    Returns:
        The path of the report.

    Raises:
        UserError: bad input of any kind; nothing is written before the data and the space have been checked.
    """
    from nas.search.storage import open_storage
    from recipes.report import write_report

    context = new_context(recipe, RunFolder(folder), track)
    announce(f"data: reading {recipe.data.source}")
    stages = plan(context)
    context.check()
    with context.run.lock() as run:
        if (
            recipe.search is not None and recipe.search.storage is not None
        ):  # rather now than when the supernet has been trained
            open_storage(recipe.search.storage, run / "study.journal")
        remember(run.path, recipe, overrides)
        write_json(run / "environment.json", environment())
        run.log("start", keys=context.keys)
        run.forget_all_but(context.keys)
        for stage in stages:
            outputs = run.finished(stage.name, context.keys[stage.name])
            if outputs is None:
                started = time.perf_counter()
                try:
                    outputs = importlib.import_module(f"recipes.stages.{stage.name}").run(context)
                except Diverged as error:
                    raise UserError(f"{stage.name}.lr", str(error)) from error
                run.finish(stage.name, context.keys[stage.name], outputs)
                for checkpoint in (run / "checkpoints").glob(f"{stage.name}-*.pt"):
                    checkpoint.unlink()
                for folder_of_checkpoints in (run / "checkpoints").glob(f"{stage.name}-*/"):
                    shutil.rmtree(folder_of_checkpoints)
                seconds = time.perf_counter() - started
                run.log("finished", stage=stage.name, seconds=round(seconds, 2))
                announce(f"{stage.name}: done in {seconds:.1f} s")
            else:
                announce(f"{stage.name}: done before")
            context.outputs[stage.name] = outputs
        return write_report(run.path)


def new_context(recipe: Recipe, run: RunFolder, track: Track) -> Context:
    """A context in which nothing has been done yet."""
    return Context(recipe, run, track, outputs={}, keys={})
