"""`rank`: predictors against a benchmark table, or against the networks that a run has trained."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from espalier.nas.errors import UserError
from espalier.nas.files import write_json, write_text
from espalier.nas.run import RunFolder
from espalier.nas.space import SearchSpace
from espalier.predictors.zero_cost.score_evaluator import batch_hash
from espalier.recipes.commands import defaults
from espalier.recipes.commands.arguments import reject
from espalier.recipes.commands.progress import announce, track
from espalier.recipes.commands.rank.page import ranking_page
from espalier.recipes.commands.rank.result import Ranking
from espalier.recipes.config.loading import load_recipe
from espalier.recipes.config.own_code import own_code
from espalier.recipes.config.registry import INHERITED, SCORES, SPACES, members
from espalier.recipes.config.roles import content_of
from espalier.recipes.config.schema import Recipe
from espalier.recipes.engine.assemble import Assembly
from espalier.recipes.engine.environment import version
from espalier.recipes.engine.predictor_set import PredictorSet
from espalier.recipes.engine.ranking.prediction_cache import ValueStore, collect, with_ensembles
from espalier.recipes.engine.ranking.rows import BASELINES, finite, ranking_rows
from espalier.recipes.engine.ranking.sample import Sample, draw_sample
from espalier.recipes.engine.stage_files import check_stage_files
from espalier.recipes.inputs.named_space import make_space, parse_space
from espalier.recipes.inputs.score_batch import load_batch
from espalier.recipes.records.ranking import RankPoint
from espalier.recipes.records.stages import Stages, read_stages, stage_keys


def rank(
    run: str | Path | None = None,
    *,
    space: str | None = None,
    table: str | Path | None = None,
    target: str | None = None,
    predictors: Sequence[str] = defaults.SCORES,
    samples: int | None = None,
    unique: bool = False,
    data: str | Path | None = None,
    batch_size: int | None = None,
    size: int | None = None,
    seed: int = defaults.SEED,
    repeats: int = defaults.REPEATS,
    limit_s: float | None = None,
    output: str | Path | None = None,
    plot: str | Path | None = None,
) -> Ranking:
    """How well predictors rank architectures: against a benchmark table, or against the networks that a run trained.

    With a run, its space, images and supernet are used. Without a table, its trained networks are ranked by their
    accuracy on its selection images; test images are not used, since choosing a predictor by them would use them up.

    Args:
        run: a run folder.
        space: the space of the table's architectures without a run: `NAME` or `NAME:key=value,...`; None is
            `nasbench201`.
        table: a CSV file, gzipped or not, with a column `arch`.
        target: the column of the table with the ground-truth metric; higher is better.
        predictors: names (see `nas ls`); `a+b` is the rank ensemble of a and b.
        samples: architectures to draw from the table; None is 200.
        unique: draw no two that are known to compute the same function.
        data: images for scores without a run, as for `score`; None is `digits`.
        batch_size: images that scores are computed on without a run; None is 64.
        size: resize the images to size x size, without a run.
        seed: of everything random.
        repeats: initialisations to average over.
        limit_s: time limit per score and network, in seconds.
        output: a folder for `ranking.json`, `ranking.html` and all values; values that it already has are reused.
        plot: an HTML file for the table and the plots.

    Raises:
        UserError: an argument cannot be used, or the run has not come far enough; nothing is computed before that.
    """
    of_run = {"space": space, "data": data, "batch_size": batch_size, "size": size}
    if run is not None:
        reject(of_run, "cannot be combined with a run folder, which already defines it")
    elif table is None:
        raise UserError("table", "is required: a table and its column, or a run folder", code="missing")
    drawn = None
    if table is None:
        reject({"target": target, "samples": samples, "unique": unique or None}, "needs a table")
    elif target is None:
        raise UserError("target", "is required: the column of the table", code="missing")
    else:
        drawn = _Drawn(Path(table), target, defaults.SAMPLES if samples is None else samples, unique, seed)
    asked = _Asked(predictors, seed, repeats, limit_s, None if output is None else Path(output))
    if run is not None:
        ranking = _rank_run(Path(run), drawn, asked)
    else:
        assert drawn is not None
        ranking = _rank_table(
            drawn,
            asked,
            space=space or defaults.SPACE,
            data=defaults.DATA if data is None else data,
            batch_size=defaults.BATCH_SIZE if batch_size is None else batch_size,
            size=size,
        )
    for path in write_ranking(ranking, folder=asked.output, plot=None if plot is None else Path(plot)):
        announce(f"wrote {path}")
    return ranking


@dataclass(frozen=True)
class _Drawn:
    """Architectures to draw from a benchmark table; see `draw_sample`."""

    table: Path
    target: str
    samples: int
    unique: bool
    seed: int

    def sample(self, space: SearchSpace) -> Sample:
        return draw_sample(self.table, space, self.target, self.samples, unique=self.unique, seed=self.seed, prefix="")


@dataclass(frozen=True)
class _Asked:
    """Which predictors are computed, how, and where their values are kept."""

    predictors: Sequence[str]
    seed: int
    repeats: int
    limit_s: float | None
    output: Path | None

    @property
    def names(self) -> list[str]:
        """Of the predictors, with the baselines."""
        return list(dict.fromkeys([*BASELINES, *self.predictors]))

    @property
    def needs_supernet(self) -> bool:
        return INHERITED in _parts(self.predictors)


def _rank_table(
    drawn: _Drawn, asked: _Asked, *, space: str, data: str | Path, batch_size: int, size: int | None
) -> Ranking:
    """Rank architectures drawn from a benchmark table."""
    if asked.needs_supernet:
        problem = f"{INHERITED!r} needs a trained supernet: set a run folder as well"
        raise UserError("predictors", problem, code="missing")
    batch = load_batch(data, batch_size, seed=asked.seed, size=size)
    torch.manual_seed(asked.seed)
    made = make_space(*parse_space(space), batch.image_shape, batch.classes)
    sample = drawn.sample(made)
    predictor_set = PredictorSet(
        made, lambda: (batch.x, batch.y), seed=asked.seed, repeats=asked.repeats, limit_s=asked.limit_s
    )
    settings = {
        "space": space,
        "images": {
            "data": str(data),
            "shape": batch.image_shape,
            "batch": batch_size,
            "hash": batch_hash(batch.x, batch.y),
        },
        "seed": asked.seed,
        "repeats": asked.repeats,
        "version": version(),
    }
    about = {"table": str(drawn.table), "target": drawn.target, **settings}
    code = {**_scores_code(asked.names), "space": content_of(SPACES, SPACES.split(space)[0])}
    return _rank(sample, predictor_set, asked, about=about, settings={**settings, "code": code})


def _rank_run(run: Path, drawn: _Drawn | None, asked: _Asked) -> Ranking:
    """Rank with the space, the images and the supernet of a run."""
    assembly = _opened(run)
    if asked.needs_supernet:
        _check_supernet(assembly.stages, assembly.recipe)
        check_stage_files(assembly.run, assembly.keys)
    if drawn is None:
        sample, against = _trained(assembly.stages, run), {"target": "selection accuracy"}
    else:
        sample, against = drawn.sample(assembly.space), {"table": str(drawn.table), "target": drawn.target}
    predictor_set = replace(assembly.predictors, repeats=asked.repeats, limit_s=asked.limit_s)
    settings = {
        "run": str(run),
        "keys": dict(assembly.keys),
        "repeats": asked.repeats,
        "version": version(),
        "code": {**_scores_code(asked.names), **own_code(assembly.recipe, "space")},
    }
    about = {"run": str(run), **against, "seed": asked.seed, "repeats": asked.repeats}
    return _rank(sample, predictor_set, asked, about=about, settings=settings)


def write_ranking(ranking: Ranking, *, folder: Path | None, plot: Path | None) -> list[Path]:
    """Write `ranking.json` and `ranking.html` into a folder, and the page to a file of its own. Returns their paths."""
    written = []
    if folder is not None:
        write_json(folder / "ranking.json", ranking.to_dict())
        written.append(folder / "ranking.json")
    for path in [path for path in (folder and folder / "ranking.html", plot) if path is not None]:
        write_text(path, ranking_page(ranking))
        written.append(path)
    return written


def _opened(run: Path) -> Assembly:
    """A run as far as it has come."""
    if not (run / "recipe.yaml").is_file():
        raise UserError(str(run), "is not a run folder: it contains no recipe.yaml", code="not_found")
    recipe = load_recipe(str(run / "recipe.yaml"))
    return Assembly(recipe, RunFolder(run), stages=read_stages(run), keys=stage_keys(run))


def _check_supernet(stages: Stages, recipe: Recipe) -> None:
    if recipe.supernet is None:
        raise UserError("predictors", f"{INHERITED!r} needs a supernet, and the run has none", code="missing")
    if stages.supernet is None:
        problem = f"{INHERITED!r} needs the run's supernet, whose training has not finished"
        raise UserError("predictors", problem, code="missing")


def _trained(stages: Stages, run: Path) -> Sample:
    """The networks that a run has trained from scratch."""
    where = str(run)
    if stages.train is None:
        problem = "has no trained networks to rank (there is no stages/train.json); with a table, others are ranked"
        raise UserError(where, problem, code="missing")
    networks = stages.networks
    if len(networks) < 3:
        raise UserError(where, f"has trained {len(networks)} networks; a ranking needs at least 3", code="too_few")
    origins = Counter(network.origin for network in networks)
    chosen_by = ", ".join(f"{count} {origin}" for origin, count in origins.items())
    targets = {network.architecture: network.accuracy for network in networks}
    return Sample(targets, f"all {len(networks)} networks that the run has trained from scratch: {chosen_by}")


def _rank(
    sample: Sample,
    predictor_set: PredictorSet,
    asked: _Asked,
    *,
    about: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Ranking:
    """The ranking of a sample; values that were computed with the same settings are reused."""
    made = predictor_set.make(_parts(asked.names), where="predictors")
    store = _store(asked.output, settings)
    architectures, targets = list(sample.targets), list(sample.targets.values())
    started = time.perf_counter()
    columns = with_ensembles(collect(architectures, made, store=store, track=track), asked.names)
    seconds = time.perf_counter() - started
    return Ranking(
        about=about,
        samples=len(targets),
        sampling=sample.sampling,
        computed=store.added,
        seconds=round(seconds, 2),
        predictors=ranking_rows(columns, targets, seed=asked.seed),
        points=[
            RankPoint(
                id=architecture.id,
                target=target,
                values={name: finite(column.numbers[i]) for name, column in columns.items()},
            )
            for i, (architecture, target) in enumerate(sample.targets.items())
        ],
    )


def _parts(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(part for name in names for part in members(name, where="predictors")))


def _scores_code(names: Sequence[str]) -> dict[str, str | None]:
    """The digest of the source of each own score: an edited one is computed again."""
    found = {part: content_of(SCORES, SCORES.split(part)[0]) for part in _parts(names)}
    return {part: digest for part, digest in found.items() if digest is not None}


def _store(output: Path | None, settings: Mapping[str, Any]) -> ValueStore:
    """Values belong to the settings they were computed with: others have a file of their own."""
    if output is None:
        return ValueStore(None)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    return ValueStore(output / f"values-{digest}.jsonl")
