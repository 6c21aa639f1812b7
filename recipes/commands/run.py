"""`run`: from a recipe to checked, timed networks and a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.measurement import Measurement
from espalier.nas.progress import silent
from espalier.nas.run import RunFolder
from espalier.recipes.commands.progress import announce, track
from espalier.recipes.config.loading import load_recipe
from espalier.recipes.config.schema import Recipe
from espalier.recipes.engine.cache_keys import plan
from espalier.recipes.engine.preflight import check
from espalier.recipes.engine.run_folders import resumed_recipe, run_folder
from espalier.recipes.engine.runner import new_context, run_recipe
from espalier.recipes.records.base import Interval
from espalier.recipes.records.networks import TrainedNetwork
from espalier.recipes.records.reading import Run
from espalier.recipes.records.search import SearchResult, SelectResult
from espalier.recipes.report import write_report


def run_recipe_file(recipe: str, overrides: Sequence[str], output: Path | None, *, resume: bool) -> Path:
    """Run a recipe, or resume a run of it.

    Args:
        recipe: a recipe file, or the name of one that ships.
        overrides: `key=value`.
        output: the run folder; None is `runs/<recipe>-<date>-<id>`, or the last such folder.
        resume: continue the run in the folder.

    Returns:
        The run folder.

    Raises:
        UserError: bad input of any kind.
    """
    settings = load_recipe(recipe, overrides)
    folder = run_folder(settings, output, resume=resume)
    announce(f"run folder: {folder}")
    if resume:
        settings, overrides, changes = resumed_recipe(folder, recipe, overrides)
        for change in changes:
            announce(f"changed: {change}")
    run_recipe(settings, folder, overrides=overrides, track=track, announce=announce)
    return folder


def write_report_of(run: Path) -> Path:
    """Write the report of a run again, also of an unfinished one.

    Raises:
        UserError: it is not a run folder.
    """
    if not (run / "recipe.yaml").is_file():
        raise UserError(str(run), "is not a run folder: it contains no recipe.yaml", code="not_found")
    return write_report(run)


def dry_run_summary(recipe: Recipe) -> dict[str, Any]:
    """The stages of a recipe with their cache keys, after every check that needs no training.

    Raises:
        UserError: whatever would stop the run.
    """
    context = new_context(recipe, RunFolder(Path()), silent)
    stages = plan(context)
    check(context)
    return {stage.name: context.keys[stage.name] for stage in stages}


def run_summary(run: Run) -> dict[str, Any]:
    """What a finished run has found, for JSON: counts, correlations, trained networks with their numbers and files."""
    stages = run.stages
    search = None if stages.search is None else stages.search.model_dump(mode="json")
    return {
        "run": str(run.path),
        "report": str(run.path / "report.html"),
        "selected": stages.select.model_dump(mode="json")["chosen"] if stages.select else [],
        "search": search and search["counts"],
        "stopped": stages.search.stopped if stages.search else "",
        "front": list(stages.search.front) if stages.search else [],
        "cascade": search and search["cascade"],
        "over_budget": list(run.over_budget),
        "test_images": stages.test.images if stages.test else 0,
        "networks": [network.to_json() for network in _results(run)],
        "rank": stages.rank.model_dump(mode="json")["correlations"] if stages.rank else [],
    }


@dataclass(frozen=True)
class _Result:
    """A trained network that meets the budget, with what the stages `profile` and `test` found."""

    trained: TrainedNetwork
    test_accuracy: float
    measurement: Measurement
    onnx: Path

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.trained.id,
            "notation": self.trained.notation,
            "origin": self.trained.origin,
            "params": self.trained.params,
            "macs": self.trained.macs,
            "selection_accuracy": self.trained.accuracy,
            "test_accuracy": self.test_accuracy,
            "latency_ms": self.measurement.latency_ms,
            "latency_ms_ci95": self.measurement.latency.ci95,
            "verdict": self.measurement.verdict,
            "onnx": str(self.onnx),
        }


def _results(run: Run) -> list[_Result]:
    """The networks of a finished run, the fastest first."""
    stages = run.stages
    if stages.test is None or stages.profile is None:
        return []
    results = [
        _Result(
            network,
            stages.test.accuracy[network.id],
            stages.profile[network.id],
            run.path / "architectures" / network.id / "model.onnx",
        )
        for network in stages.networks
        if network.id not in run.over_budget
    ]
    return sorted(results, key=lambda result: result.measurement.latency_ms)


def run_text(run: Run) -> str:
    """The same for a person: what was searched, a line for each trained network, where the report is."""
    stages = run.stages
    report = f"report: {run.path / 'report.html'}"
    lines = [*_selection_lines(stages.select), *_search_lines(stages.search)]
    if run.over_budget:
        lines.append(f"budget: trained and left out, over it when measured: {', '.join(run.over_budget)}")
    if stages.search is not None and stages.search.stopped:
        lines.append(f"search: ended early, {stages.search.stopped}")
    for row in stages.rank.correlations if stages.rank else ():
        kendall = "undefined" if row.kendall is None else f"{row.kendall:.3f} {_interval(row.kendall_ci95)}"
        lines.append(f"rank: {row.name:10} Kendall tau {kendall}, n = {row.n}")
    results = _results(run)
    if not results or stages.test is None:
        return "\n".join([*lines, report])
    lines.append(f"{'network':14}{'found as':14}{'params':>10}{'MACs':>13}{'test':>8}  latency p50 (95 % interval)")
    for result in results:
        network, measurement = result.trained, result.measurement
        latency = f"{measurement.latency_ms:.3f} ms {_interval(measurement.latency.ci95)} {measurement.verdict}"
        lines.append(
            f"{network.id:14}{network.origin:14}{network.params:>10,}{network.macs:>13,}"
            f"{result.test_accuracy:>8.1%}  {latency}"
        )
    lines.append(f"test: {stages.test.images} held-out images, not used for selection")
    return "\n".join([*lines, report])


def _selection_lines(select: SelectResult | None) -> list[str]:
    chosen = select.chosen if select else ()
    lines = [f"select: {one.method} chose {one.id}, {one.notation}" for one in chosen]
    for one in chosen:
        if one.replaces:
            lines.append(f"budget: {one.id} is the nearest to {one.replaces.id}, which has {one.replaces.why}")
    return lines


def _search_lines(search: SearchResult | None) -> list[str]:
    if search is None:
        return []
    counts = ", ".join(f"{count} {what}" for what, count in search.counts.items() if count)
    lines = [f"search: {counts}; {len(search.front)} on the front"]
    if cascade := search.cascade:
        text = f"{cascade.measurement} candidates measured, {cascade.estimate} decided by an estimate"
        lines.append(f"budget: latency_ms <= {cascade.limit_ms:g}; {text}")
    return lines


def _interval(bounds: Interval) -> str:
    low, high = bounds or (None, None)
    return "" if low is None or high is None else f"[{low:.3g}, {high:.3g}]"
