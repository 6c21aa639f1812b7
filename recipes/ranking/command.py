"""`nas rank`: predictors against a benchmark table, or against the networks that a run has trained."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nas.architecture import Architecture
from nas.errors import UserError
from nas.files import read_json, write_json, write_text
from nas.progress import Track, silent
from nas.run import RunFolder
from predictors.zero_cost.examiner import batch_hash
from recipes.components import INHERITED, members
from recipes.environment import version
from recipes.loading import load_recipe
from recipes.predictor_set import PredictorSet
from recipes.ranking.page import ranking_page
from recipes.ranking.rows import SIZE, finite, ranking_rows
from recipes.ranking.sample import draw_sample
from recipes.ranking.values import ValueStore, collect, with_ensembles
from recipes.scoring import load_batch, space_from

BASELINES = ("params", "macs")
"""Always among the rows: a predictor that does not beat them knows nothing but the size."""


def rank_table(
    *,
    space: str,
    table: Path,
    target: str,
    predictors: Sequence[str],
    samples: int,
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
        raise UserError("--predictors", f"{INHERITED!r} needs a trained supernet: rank against a run instead")
    batch = load_batch(data, batch_size, seed=seed, size=size)
    torch.manual_seed(seed)
    made = space_from(space, batch)
    chosen = draw_sample(table, made, target, samples, seed=seed, prefix="--")
    predictor_set = PredictorSet(made, lambda: (batch.x, batch.y), seed=seed, repeats=repeats, limit_s=limit_s)
    settings = {
        "space": space,
        "images": {"data": data, "shape": batch.image_shape, "batch": batch_size, "hash": batch_hash(batch.x, batch.y)},
        "seed": seed,
        "repeats": repeats,
        "version": version(),
    }
    about = {"table": str(table), "target": target, **settings}
    store = _store(output, settings)
    return _rank(chosen, predictor_set, predictors, about=about, seed=seed, store=store, track=track)


def rank_run(run: Path, predictors: Sequence[str], *, output: Path | None, seed: int, track: Track) -> dict[str, Any]:
    """Ranks the networks that a run has trained alone by their accuracy on its selection images.

    The test images stay out of it: whoever chooses a predictor by them has used them up.

    Raises:
        UserError: not a run folder with trained networks, or a predictor that the run cannot have.
    """
    from recipes.context import Context

    trained = run / "stages" / "train.json"
    if not trained.is_file():
        raise UserError(str(run), "is not a run folder with trained networks: it holds no stages/train.json")
    stages = {path.stem: read_json(path) for path in (run / "stages").glob("*.json")}
    keys = {name: str(stage.get("key")) for name, stage in stages.items()}
    recipe = load_recipe(str(run / "recipe.yaml"))
    outputs = {name: stage["outputs"] for name, stage in stages.items()}
    context = Context(recipe, RunFolder(run), silent, outputs=outputs, keys=keys)
    if INHERITED in _parts(predictors) and recipe.supernet is None:
        raise UserError("--predictors", f"{INHERITED!r} needs a supernet, and the run has trained none")
    networks = stages["train"]["outputs"]["networks"]
    if len(networks) < 3:
        raise UserError(str(run), f"has trained {len(networks)} networks; a ranking needs at least 3")
    accuracies = {Architecture(network["architecture"]): float(network["accuracy"]) for network in networks}
    settings = {"run": str(run), "keys": keys, "version": version()}
    about = {"run": str(run), "target": "selection accuracy"}
    store = _store(output, settings)
    return _rank(accuracies, context.predictors, predictors, about=about, seed=seed, store=store, track=track)


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


def _rank(
    chosen: Mapping[Architecture, float],
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
    started = time.perf_counter()
    columns = with_ensembles(collect(list(chosen), made, store=store, track=track), names)
    seconds = time.perf_counter() - started
    targets = list(chosen.values())
    return {
        **about,
        "samples": len(targets),
        "computed": store.added,
        "seconds": round(seconds, 2),
        "predictors": [
            {**row, "ci95": row["spearman_ci95"]}  # of the rank correlation that most tables print
            for row in ranking_rows(columns, targets, seed=seed)
        ],
        "points": [
            {
                "id": architecture.id,
                "target": target,
                "values": {n: finite(column.numbers[i]) for n, column in columns.items()},
            }
            for i, (architecture, target) in enumerate(chosen.items())
        ],
    }


def ranking_text(ranking: Mapping[str, Any]) -> str:
    """A ranking as a table of text."""
    against = ranking.get("table") or ranking.get("run")
    lines = [
        f"{ranking['samples']} architectures against {ranking['target']} of {against}",
        f"{'predictor':24}{'Spearman (95 %)':>24}{'Kendall (95 %)':>24}{'top tenth':>11}"
        f"{f'given {SIZE}':>14}{'no value':>10}",
    ]
    for row in ranking["predictors"]:
        top = row.get("top", {}).get("spearman")
        given = row.get("spearman_given_params")
        lines.append(
            f"{row['name']:24}{_with_interval(row, 'spearman'):>24}{_with_interval(row, 'kendall'):>24}"
            f"{_rounded(top):>11}{_rounded(given):>14}{row['not_finite']:>10}"
        )
    images = ranking.get("images")
    seeds = f"seed {ranking['seed']}, {ranking['repeats']} initialisation(s)" if "seed" in ranking else ""
    if images:
        lines.append(f"batch of {images['batch']} images of {images['data']} ({images['hash']}), {seeds}")
    per = ranking["seconds"] / max(1, ranking["computed"])
    lines.append(f"{ranking['computed']} architectures computed in {ranking['seconds']} s, {per:.2f} s each")
    return "\n".join(lines)


def _parts(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(part for name in names for part in members(name, where="--predictors")))


def _store(output: Path | None, settings: Mapping[str, Any]) -> ValueStore:
    """Values belong to the settings they were computed with: others have a file of their own."""
    if output is None:
        return ValueStore(None)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    return ValueStore(output / f"values-{digest}.jsonl")


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _with_interval(row: Mapping[str, Any], statistic: str) -> str:
    low, high = row[f"{statistic}_ci95"]
    return _rounded(row[statistic]) + ("" if low is None else f" [{low:.3f}, {high:.3f}]")
