"""The commands `nas run` and `nas report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from espalier.recipes.cli.options import AsJson, print_result


def run(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one (see nas ls).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as search.trials=20 seed=3.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Run folder [runs/RECIPE-DATE-ID].")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the folder, or the last run of the recipe.")
    ] = False,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="With --resume: drop what is damaged in the folder and make it again.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print the stages; run and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe from data to checked, timed networks and a report."""
    from espalier.recipes.commands.progress import waiting
    from espalier.recipes.commands.run import dry_run_summary, dry_run_text, run_or_resume, run_summary, run_text
    from espalier.recipes.config.loading import load_recipe

    if dry_run:
        settings = load_recipe(recipe, overrides or [])
        with waiting(f"reading {settings.data.source}"):
            summary = dry_run_summary(settings, output)
        print_result(summary if as_json else dry_run_text(summary), as_json)
        return
    finished = run_or_resume(recipe, overrides or [], output, resume=resume, salvage=salvage)
    print_result(run_summary(finished) if as_json else run_text(finished), as_json)


def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    as_json: AsJson = False,
) -> None:
    """Write the report of a run again, also of an unfinished one."""
    from espalier.recipes.commands.progress import waiting
    from espalier.recipes.commands.run import write_report_of

    with waiting("drawing"):
        path = write_report_of(run)
    print_result({"report": str(path)}, as_json)
