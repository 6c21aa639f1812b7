"""Runs a recipe: its stages in order, each skipped if it has finished before with the same inputs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from espalier.nas.errors import UserError
from espalier.nas.files import write_json
from espalier.nas.progress import Track, silent
from espalier.nas.run import RunFolder
from espalier.nas.training import Diverged
from espalier.recipes.config.schema import Recipe
from espalier.recipes.engine.assemble import Assembly
from espalier.recipes.engine.environment import environment
from espalier.recipes.engine.pipeline import Pipeline
from espalier.recipes.engine.run_folders import STUDY, free_if_nothing_began, remember
from espalier.recipes.engine.stage_files import check_stage_files, salvage_stages, stage_files
from espalier.recipes.records.stages import finished_stage, write_stage
from espalier.recipes.report import write_report


def _say_nothing(line: str) -> None:
    """Takes news and tells nobody."""


def run_recipe(
    recipe: Recipe,
    folder: Path,
    *,
    overrides: Sequence[str] = (),
    salvage: bool = False,
    track: Track = silent,
    announce: Callable[[str], None] = _say_nothing,
) -> Path:
    """Run what has not finished yet, then write the report.

    Args:
        recipe: what to run.
        folder: the run folder, new or of an earlier run of the recipe.
        overrides: those in `recipe`, kept for when the run is resumed.
        salvage: go on with what is whole, where files of an earlier run are damaged.
        track: shows progress.
        announce: told what happens, a line at a time.

    Returns:
        The path of the report.

    Raises:
        UserError: bad input of any kind; nothing is written before the data and the space have been checked.
    """
    from espalier.nas.search.journal import salvage_journal
    from espalier.nas.search.storage import open_storage

    announce(f"data: reading {recipe.data.source}")
    assembly = Assembly(recipe, RunFolder(folder), track)
    pipeline, keys = Pipeline(assembly), assembly.plan.keys
    pipeline.check()
    with assembly.run.lock() as run, free_if_nothing_began(run):
        if salvage:
            salvage_journal(run / STUDY)
            salvage_stages(run, keys)
        check_stage_files(run, keys)
        if recipe.search is not None and recipe.search.storage is not None:
            open_storage(recipe.search.storage, run / STUDY)  # rather now than after the supernet
        remember(run.path, recipe, overrides)
        write_json(run / "environment.json", environment())
        run.log("start", keys=dict(keys))
        run.forget_all_but(keys)
        for stage in assembly.plan.stages:
            name, key = stage.name, keys[stage.name]
            result = finished_stage(run, name, key)
            if result is None:
                started = time.perf_counter()
                result = _run_stage(pipeline, name, seed=assembly.seeds(f"stage {name}"))
                write_stage(run, name, key, result, stage_files(run, name, key))
                seconds = time.perf_counter() - started
                run.log("finished", stage=name, seconds=round(seconds, 2))
                announce(f"{name}: done in {seconds:.1f} s")
            else:
                announce(f"{name}: done before")
            _tidy(run.path / "checkpoints", name, key)
            assembly.stages = assembly.stages.extended(name, result)
        return write_report(run.path)


def _run_stage(pipeline: Pipeline, stage: str, *, seed: int) -> Any:
    """The stage's result; what layers draw meanwhile from torch's global generator is the recipe's own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return pipeline.run(stage)
        except Diverged as error:
            raise UserError(f"{stage}.lr", str(error), code="failed") from error


def _tidy(checkpoints: Path, stage: str, key: str) -> None:
    """Remove the checkpoints of a finished stage, and supernets that belong to an earlier version of the recipe."""
    for path in checkpoints.glob(f"{stage}-*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix == ".pt":
            path.unlink()
    if stage == "supernet":
        for path in [*checkpoints.glob("supernet-*"), *checkpoints.glob("strategy-*")]:
            if path.name.split("-")[1].split(".")[0] != key:
                path.unlink()
