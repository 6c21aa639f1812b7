"""`nas rank`: predictors against a benchmark table, or against the networks that a run has trained."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from espalier.nas.errors import UserError
from espalier.nas.files import write_json, write_text
from espalier.nas.progress import Track, silent
from espalier.nas.run import RunFolder
from espalier.predictors.zero_cost.score_evaluator import batch_hash
from espalier.recipes.commands.rank.page import ranking_page
from espalier.recipes.config.loading import load_recipe
from espalier.recipes.config.registry import INHERITED, members
from espalier.recipes.engine.environment import version
from espalier.recipes.engine.predictor_set import PredictorSet
from espalier.recipes.engine.ranking.prediction_cache import ValueStore, collect, with_ensembles
from espalier.recipes.engine.ranking.rows import BASELINES, finite, ranking_rows
from espalier.recipes.engine.ranking.sample import Sample, draw_sample
from espalier.recipes.inputs.score_batch import load_batch, space_from
from espalier.recipes.records.stages import read_stages, stage_keys

if TYPE_CHECKING:
    from espalier.recipes.engine.context import Context


def rank_table(
    *,
    space: str,
    table: Path,
    target: str,
    predictors: Sequence[str],
    samples: int,
    unique: bool,
    seed: int,
    data: str,
    batch_size: int,
    size: int | None,
    repeats: int,
    limit_s: float | None,
    output: Path | None,
    track: Track,
) -> dict[str, Any]:
    """Ranks architectures drawn from a benchmark table; the arguments are the options of the command.

    Raises:
        UserError: whatever of them cannot be used, before anything is computed.
    """
    if INHERITED in _parts(predictors):
        raise UserError("--predictors", f"{INHERITED!r} needs a trained supernet: give the folder of a run as well")
    batch = load_batch(data, batch_size, seed=seed, size=size)
    torch.manual_seed(seed)
    made = space_from(space, batch)
    sample = draw_sample(table, made, target, samples, unique=unique, seed=seed, prefix="--")
    predictor_set = PredictorSet(made, lambda: (batch.x, batch.y), seed=seed, repeats=repeats, limit_s=limit_s)
    settings = {
        "space": space,
        "images": {"data": data, "shape": batch.image_shape, "batch": batch_size, "hash": batch_hash(batch.x, batch.y)},
        "seed": seed,
        "repeats": repeats,
        "version": version(),
    }
    about = {"table": str(table), "target": target, **settings}
    return _rank(sample, predictor_set, predictors, about=about, seed=seed, store=_store(output, settings), track=track)


def rank_run(
    run: Path,
    *,
    table: Path | None,
    target: str | None,
    predictors: Sequence[str],
    samples: int,
    unique: bool,
    seed: int,
    repeats: int,
    limit_s: float | None,
    output: Path | None,
    track: Track,
) -> dict[str, Any]:
    """Ranks with what a run has: its space, its images, its supernet.

    Architectures drawn from a benchmark table where there is one, else the networks that the run has trained alone, by
    their accuracy on its selection images. The test images stay out of it: whoever chooses a predictor by them has
    used them up.

    Raises:
        UserError: not the folder of a run that has come far enough, or whatever of the options cannot be used.
    """
    context = _opened(run)
    if INHERITED in _parts(predictors):
        _check_supernet(context)
    if table is None or target is None:
        sample, against = _trained(context), {"target": "selection accuracy"}
    else:
        sample = draw_sample(table, context.space, target, samples, unique=unique, seed=seed, prefix="--")
        against = {"table": str(table), "target": target}
    predictor_set = replace(context.predictors, repeats=repeats, limit_s=limit_s)
    settings = {"run": str(run), "keys": context.keys, "repeats": repeats, "version": version()}
    about = {"run": str(run), **against, "seed": seed, "repeats": repeats}
    return _rank(sample, predictor_set, predictors, about=about, seed=seed, store=_store(output, settings), track=track)


def write_ranking(ranking: Mapping[str, Any], *, folder: Path | None, plot: Path | None) -> list[Path]:
    """The ranking as `ranking.json` and `ranking.html` in a folder, and as a page of its own; where they are."""
    written = []
    if folder is not None:
        write_json(folder / "ranking.json", ranking)
        written.append(folder / "ranking.json")
    for path in [path for path in (folder and folder / "ranking.html", plot) if path is not None]:
        write_text(path, ranking_page(ranking))
        written.append(path)
    return written


def _opened(run: Path) -> Context:
    """A run as far as it has come."""
    from espalier.recipes.engine.context import Context

    if not (run / "recipe.yaml").is_file():
        raise UserError(str(run), "is not a run folder: it holds no recipe.yaml")
    recipe = load_recipe(str(run / "recipe.yaml"))
    return Context(recipe, RunFolder(run), silent, stages=read_stages(run), keys=stage_keys(run))


def _check_supernet(context: Context) -> None:
    if context.recipe.supernet is None:
        raise UserError("--predictors", f"{INHERITED!r} needs a supernet, and the run has trained none")
    if context.stages.supernet is None:
        raise UserError("--predictors", f"{INHERITED!r} needs the run's supernet, whose training has not finished")


def _trained(context: Context) -> Sample:
    """The networks that a run has trained alone."""
    run = str(context.run.path)
    if context.stages.train is None:
        raise UserError(run, "has no trained networks to rank: it holds no stages/train.json; --table ranks others")
    networks = context.stages.networks
    if len(networks) < 3:
        raise UserError(run, f"has trained {len(networks)} networks; a ranking needs at least 3")
    origins = Counter(network.origin for network in networks)
    chosen_by = ", ".join(f"{count} {origin}" for origin, count in origins.items())
    targets = {network.architecture: network.accuracy for network in networks}
    return Sample(targets, f"all {len(networks)} networks that the run has trained alone: {chosen_by}")


def _rank(
    sample: Sample,
    predictor_set: PredictorSet,
    names: Sequence[str],
    *,
    about: Mapping[str, Any],
    seed: int,
    store: ValueStore,
    track: Track,
) -> dict[str, Any]:
    names = list(dict.fromkeys([*BASELINES, *names]))
    made = predictor_set.make(_parts(names), where="--predictors")
    architectures, targets = list(sample.targets), list(sample.targets.values())
    started = time.perf_counter()
    columns = with_ensembles(collect(architectures, made, store=store, track=track), names)
    seconds = time.perf_counter() - started
    return {
        **about,
        "samples": len(targets),
        "sampling": sample.sampling,
        "computed": store.added,
        "seconds": round(seconds, 2),
        "predictors": [
            {**row.model_dump(mode="json"), "ci95": row.spearman_ci95}  # of the rank correlation that most tables print
            for row in ranking_rows(columns, targets, seed=seed)
        ],
        "points": [
            {
                "id": architecture.id,
                "target": target,
                "values": {n: finite(column.numbers[i]) for n, column in columns.items()},
            }
            for i, (architecture, target) in enumerate(sample.targets.items())
        ],
    }


def _parts(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(part for name in names for part in members(name, where="--predictors")))


def _store(output: Path | None, settings: Mapping[str, Any]) -> ValueStore:
    """Values belong to the settings they were computed with: others have a file of their own."""
    if output is None:
        return ValueStore(None)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    return ValueStore(output / f"values-{digest}.jsonl")
