"""Runs a recipe: its stages in order, each skipped if it has finished before with the same inputs."""

from __future__ import annotations

import hashlib
import importlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.errors import UserError
from nas.files import write_json, write_text
from nas.progress import Track
from nas.run import RunFolder
from nas.training import Diverged
from recipes.context import Context
from recipes.environment import environment, version
from recipes.loading import dump_recipe
from recipes.schema import Recipe


@dataclass(frozen=True)
class Stage:
    """A step of a run.

    Attributes:
        name: also the module in `recipes.stages` and the file in the run folder.
        sections: the recipe's sections it depends on; the stage is not run if the first of them is absent.
        needs: the stages whose outputs it uses, as far as the recipe has them.
    """

    name: str
    sections: tuple[str, ...]
    needs: tuple[str, ...]


STAGES = (
    Stage("data", ("data", "seed"), ()),
    Stage("supernet", ("supernet", "space"), ("data",)),
    Stage("rank", ("rank", "space"), ("data", "supernet")),
    Stage("search", ("search", "space", "profile"), ("data", "supernet")),
    Stage("train", ("train",), ("search",)),
    Stage("export", ("train",), ("train",)),
    Stage("profile", ("profile",), ("export",)),
    Stage("test", ("train",), ("train",)),
)


def plan(context: Context) -> list[Stage]:
    """The stages of the context's recipe in order; fills in their cache keys.

    A key is a hash of everything that decides a stage's outputs: the platform's version, its sections of the
    recipe, the content of the images, and the keys of the stages before it.
    """
    recipe = context.recipe.model_dump(mode="json")
    stages = [stage for stage in STAGES if recipe[stage.sections[0]] is not None]
    for stage in stages:
        inputs: dict[str, Any] = {
            "stage": stage.name,
            "version": version(),
            "sections": {name: recipe[name] for name in stage.sections},
            "needs": [context.keys[need] for need in stage.needs if need in context.keys],
        }
        if stage.name == "data":
            inputs["images"] = context.splits.fingerprint
        if stage.name == "search":  # more trials are the same study, taken further
            without = {k: v for k, v in recipe["search"].items() if k != "trials"}
            context.study_key = _hash(inputs | {"sections": inputs["sections"] | {"search": without}})
        context.keys[stage.name] = _hash(inputs)
    return stages


def run_recipe(recipe: Recipe, folder: Path, *, track: Track, announce: Callable[[str], None]) -> Path:
    """Run what is not done yet, then write the report.

    Args:
        recipe: what to run. folder: the run folder, new or of an earlier run of the recipe.
        track: shows progress. announce: told what happens, a line at a time.

    Returns:
        The path of the report.

    Raises:
        UserError: bad input of any kind; nothing is written before the data and the space have been checked.
    """
    context = new_context(recipe, RunFolder(folder), track)
    announce(f"data: reading {recipe.data.source}")
    stages = plan(context)
    context.check()
    with context.run.lock() as run:
        write_text(run / "recipe.yaml", dump_recipe(recipe))
        write_json(run / "environment.json", environment())
        run.log("start", keys=context.keys)
        for stage in stages:
            outputs = run.finished(stage.name, context.keys[stage.name])
            if outputs is None:
                started = time.perf_counter()
                try:
                    outputs = importlib.import_module(f"recipes.stages.{stage.name}").run(context)
                except Diverged as error:
                    raise UserError(f"{stage.name}.lr", str(error)) from error
                run.finish(stage.name, context.keys[stage.name], outputs)
                seconds = time.perf_counter() - started
                run.log("finished", stage=stage.name, seconds=round(seconds, 2))
                announce(f"{stage.name}: done in {seconds:.1f} s")
            else:
                announce(f"{stage.name}: done before")
            context.outputs[stage.name] = outputs
        from recipes.report import write_report

        return write_report(run.path)


def new_context(recipe: Recipe, run: RunFolder, track: Track) -> Context:
    """A context in which nothing has been done yet."""
    return Context(recipe, run, track, outputs={}, keys={})


def run_folder(recipe: Recipe, output: Path | None, *, resume: bool, runs: Path = Path("runs")) -> Path:
    """Where a run goes: `output`, or `runs/<recipe>-<date>-<id>`; with `resume`, the last such folder.

    Raises:
        UserError: nothing to resume, or something there already that would be written over.
    """
    if output is None and resume:
        found = sorted(runs.glob(f"{recipe.name}-*/recipe.yaml"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise UserError(str(runs), f"has no run of {recipe.name} to resume")
        return found[-1].parent
    if output is None:
        date = time.strftime("%Y%m%d-%H%M%S")
        return runs / f"{recipe.name}-{date}-{_hash(recipe.model_dump(mode='json'))[:6]}"
    try:
        content = [path.name for path in output.iterdir()]
    except NotADirectoryError as error:
        raise UserError(str(output), "is a file, not a folder, or lies below one") from error
    except FileNotFoundError:
        content = []
    except OSError as error:
        raise UserError(str(output), f"cannot be read: {error.strerror or error}") from error
    if not resume and any(name != ".lock" and not name.endswith(".tmp") for name in content):
        # (a run that was killed at once leaves those two)
        raise UserError(str(output), "is not empty; --resume goes on with the run in it")
    if resume and "recipe.yaml" not in content:
        raise UserError(str(output), "holds no run to resume")
    return output


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
