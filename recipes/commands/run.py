"""`run`: from a recipe to checked, timed networks and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.run import RunFolder
from espalier.recipes.commands.progress import announce, track
from espalier.recipes.commands.run_result import Run, RunNetwork
from espalier.recipes.config.loading import format_override, load_recipe
from espalier.recipes.config.schema import Recipe
from espalier.recipes.engine.assemble import Assembly
from espalier.recipes.engine.pipeline import Pipeline
from espalier.recipes.engine.run_folders import check_writable, resumed_recipe, run_folder
from espalier.recipes.engine.runner import run_recipe
from espalier.recipes.engine.sizes import sizes
from espalier.recipes.records.base import Interval
from espalier.recipes.records.reading import load_run as read_run
from espalier.recipes.records.search import SearchResult, SelectResult
from espalier.recipes.report import write_report


def run(
    recipe: str | Path | Mapping[str, Any],
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    salvage: bool = False,
    **overrides: Any,
) -> Run:
    """Run a recipe from data to checked, timed networks and a report.

    Args:
        recipe: the name of a shipped recipe (see `nas ls`), a recipe file, or its content as a mapping.
        folder: the run folder; None is `runs/<recipe>-<date>-<id>`, or with `resume` the last such folder.
        resume: continue the run in the folder, also with other overrides; finished stages that they do not affect are
            not run again.
        salvage: when resuming, go on with what is whole where files of the folder are damaged: the study up to its
            first damaged line, and the stages whose records and files are as they were written.
        overrides: keys of the recipe and their values, such as `seed=3` and `**{"search.trials": 20}`. A section that
            is given as a mapping replaces the recipe's.

    Raises:
        UserError: bad input of any kind; nothing is written before the data and the space have been checked.
    """
    texts = [format_override(key, value) for key, value in overrides.items()]
    return run_or_resume(recipe, texts, None if folder is None else Path(folder), resume=resume, salvage=salvage)


def load_run(folder: str | Path) -> Run:
    """The run in a folder, finished or not.

    Raises:
        UserError: it is not a run folder, or one of its files is damaged.
    """
    return Run(read_run(Path(folder)))


def run_or_resume(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str],
    folder: Path | None,
    *,
    resume: bool,
    salvage: bool = False,
) -> Run:
    """See `run`; the overrides are `key=value`.

    Raises:
        UserError: see `run`.
    """
    if salvage and not resume:
        raise UserError("salvage", "goes with resume: it is about the files of an earlier run", code="conflict")
    settings = load_recipe(recipe, overrides)
    folder = run_folder(settings, folder, resume=resume)
    check_writable(folder)
    announce(f"run folder: {folder}")
    if resume:
        settings, overrides, changes = resumed_recipe(folder, recipe, overrides)
        for change in changes:
            announce(f"changed: {change}")
    run_recipe(settings, folder, overrides=overrides, salvage=salvage, track=track, announce=announce)
    return load_run(folder)


def write_report_of(run: Path) -> Path:
    """Write the report of a run again, also of an unfinished one.

    Raises:
        UserError: it is not a run folder.
    """
    if not (run / "recipe.yaml").is_file():
        raise UserError(str(run), "is not a run folder: it contains no recipe.yaml", code="not_found")
    return write_report(run)


def dry_run_summary(recipe: Recipe, folder: Path | None = None) -> dict[str, Any]:
    """The stages of a recipe with their cache keys, and its sizes, after every check that needs no training.

    Args:
        recipe: to check.
        folder: that a new run would be written to.

    Raises:
        UserError: whatever would stop the run.
    """
    if folder is not None:
        check_writable(folder)
    assembly = Assembly(recipe, RunFolder(Path()))
    keys = dict(assembly.plan.keys)
    Pipeline(assembly).check()
    return {"stages": keys, **sizes(assembly)}


def dry_run_text(summary: Mapping[str, Any]) -> str:
    """The same for a person."""
    stages, space, memory = summary["stages"], summary["space"], summary["memory_bytes"]
    lines = [f"{stage}: {key}" for stage, key in stages.items()]
    lines.append("images: " + ", ".join(f"{count:,} {part}" for part, count in summary["images"].items()))
    lines.append(f"space: {_many(space['architectures'])} architectures, {space['parameters']:,} parameters in all")
    lines += [f"steps of {stage}: {count:,}" for stage, count in summary["steps"].items()]
    counted = ", ".join(f"{size / 2**20:,.0f} MiB {what}" for what, size in memory.items())
    lines.append(f"memory: {counted} (counted on a batch of two)" if len(memory) > 1 else f"memory: {counted}")
    return "\n".join(lines)


def _many(count: int) -> str:
    return f"{count:,}" if count < 10**9 else f"10^{len(str(count)) - 1}"


def run_summary(run: Run) -> dict[str, Any]:
    """What a finished run has found, for JSON: counts, correlations, trained networks with their numbers and files."""
    stages = run.record.stages
    search = None if stages.search is None else stages.search.model_dump(mode="json")
    return {
        "run": str(run.folder),
        "report": str(run.report),
        "selected": stages.select.model_dump(mode="json")["chosen"] if stages.select else [],
        "search": search and search["counts"],
        "stopped": stages.search.stopped if stages.search else "",
        "front": list(stages.search.front) if stages.search else [],
        "cascade": search and search["cascade"],
        "over_budget": list(run.over_budget),
        "test_images": stages.test.images if stages.test else 0,
        "networks": [network.to_dict() for network in _finished(run)],
        "rank": stages.rank.model_dump(mode="json")["correlations"] if stages.rank else [],
    }


def _finished(run: Run) -> list[RunNetwork]:
    """The networks of a run that has timed and tested them."""
    return [one for one in run.networks if one.measurement is not None and one.test_accuracy is not None]


def run_text(run: Run) -> str:
    """The same for a person: what was searched, a line for each trained network, where the report is."""
    stages = run.record.stages
    report = f"report: {run.report}"
    lines = [*_selection_lines(stages.select), *_search_lines(stages.search)]
    if run.over_budget:
        lines.append(f"budget: trained and left out, over it when measured: {', '.join(run.over_budget)}")
    if stages.search is not None and stages.search.stopped:
        lines.append(f"search: ended early, {stages.search.stopped}")
    for row in stages.rank.correlations if stages.rank else ():
        kendall = "undefined" if row.kendall is None else f"{row.kendall:.3f} {_interval(row.kendall_ci95)}"
        lines.append(f"rank: {row.name:10} Kendall tau {kendall}, n = {row.n}")
    networks = _finished(run)
    if not networks or stages.test is None:
        return "\n".join([*lines, report])
    lines.append(f"{'network':14}{'found as':14}{'params':>10}{'MACs':>13}{'test':>8}  latency p50 (95 % interval)")
    lines += map(_network_line, networks)
    lines.append(f"test: {stages.test.images} held-out images, not used for selection")
    return "\n".join([*lines, report])


def _network_line(network: RunNetwork) -> str:
    measurement = network.measurement
    assert measurement is not None
    return (
        f"{network.id:14}{network.record.origin:14}{network.params:>10,}{network.macs:>13,}"
        f"{network.test_accuracy:>8.1%}  "
        f"{measurement.latency_ms:.3f} ms {_interval(measurement.latency.ci95)} {measurement.verdict}"
    )


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
