"""The command line `nas`. Heavy imports happen inside the commands, so that help is quick."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from espalier.nas.errors import UserError
from espalier.nas.memory import keep_freed_memory
from espalier.recipes.cli.lut import lut_app
from espalier.recipes.cli.options import (
    AsJson,
    BatchSize,
    Data,
    LimitSeconds,
    Repeats,
    Seed,
    Size,
    answer,
    names,
    refuse,
)
from espalier.recipes.cli.profile import profile
from espalier.recipes.cli.prune import prune
from espalier.recipes.cli.quantize import quantize

app = typer.Typer(
    help="Find and shrink neural networks for real hardware.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",  # the other markup swallows what is in brackets
)
recipes_app = typer.Typer(help="The recipes that ship.", no_args_is_help=True)
app.add_typer(recipes_app, name="recipes")
app.add_typer(lut_app, name="lut")
app.command()(profile)
app.command()(prune)
app.command()(quantize)

USAGE_ERROR: type[Any] = typer.BadParameter.__mro__[1]
"""The base of all that the parser of the command line complains of."""


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of one that ships (see nas ls).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as search.trials=20 seed=3.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Run folder [runs/<recipe>-<date>-<id>].")
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on with the run in the folder, or with the last of the recipe.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option(help="Check everything and print the stages; run and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe from data to checked, timed networks and a report."""
    from espalier.recipes.cli.console import announce, track, waiting
    from espalier.recipes.commands.run import dry_run_summary, run_summary, run_text
    from espalier.recipes.config.loading import load_recipe
    from espalier.recipes.engine.run_folders import resumed_recipe, run_folder
    from espalier.recipes.engine.runner import run_recipe
    from espalier.recipes.records.reading import load_run

    overrides = overrides or []
    settings = load_recipe(recipe, overrides)
    if dry_run:
        with waiting(f"reading {settings.data.source}"):
            stages = dry_run_summary(settings)
        answer(stages, as_json)
        return
    folder = run_folder(settings, output, resume=resume)
    announce(f"run folder: {folder}")
    if resume:
        settings, overrides, changes = resumed_recipe(folder, recipe, overrides)
        for change in changes:
            announce(f"changed: {change}")
    run_recipe(settings, folder, overrides=overrides, track=track, announce=announce)
    finished = load_run(folder)
    answer(run_summary(finished) if as_json else run_text(finished), as_json)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    as_json: AsJson = False,
) -> None:
    """Write the report of a run again, also of an unfinished one."""
    from espalier.recipes.cli.console import waiting
    from espalier.recipes.report import write_report

    if not (run / "recipe.yaml").is_file():
        raise UserError(str(run), "is not a run folder: it holds no recipe.yaml")
    with waiting("drawing"):
        path = write_report(run)
    answer({"report": str(path)}, as_json)


@app.command()
def score(
    networks: Annotated[
        list[str],
        typer.Argument(help="timm:NAME, FILE.py:FUNCTION, or an architecture of the space, in its notation or a file."),
    ],
    space: Annotated[
        str | None, typer.Option(help="NAME or NAME:key=value,..., of the architectures (see nas ls).")
    ] = None,
    scores: Annotated[str, typer.Option(help="Names joined by commas (see nas ls).")] = "gradsign,naswot,synflow,zico",
    data: Data = "digits",
    batch_size: BatchSize = 64,
    size: Size = None,
    seed: Seed = 0,
    repeats: Repeats = 1,
    limit_seconds: LimitSeconds = None,
    as_json: AsJson = False,
) -> None:
    """Zero-cost scores of networks with fresh weights: given architectures, or any model."""
    from espalier.recipes.cli.console import track
    from espalier.recipes.commands.score import score_networks, scores_text

    records = score_networks(
        networks,
        space=space,
        scores=names(scores),
        data=data,
        batch_size=batch_size,
        size=size,
        seed=seed,
        repeats=repeats,
        limit_s=limit_seconds,
        track=track,
    )
    answer(records if as_json else scores_text(records), as_json)


@app.command()
def rank(
    run: Annotated[
        Path | None, typer.Argument(help="A run folder: its supernet, space and images; without --table its networks.")
    ] = None,
    space: Annotated[str | None, typer.Option(help="NAME or NAME:key=value,... (see nas ls) [nasbench201].")] = None,
    table: Annotated[Path | None, typer.Option(help="CSV file, gzipped or not, with a column arch.")] = None,
    target: Annotated[
        str | None, typer.Option(help="The table's column with what came true; higher is better.")
    ] = None,
    predictors: Annotated[
        str, typer.Option(help="Names joined by commas (see nas ls); a+b is the rank ensemble of a and b.")
    ] = "gradsign,naswot,synflow,zico",
    samples: Annotated[int | None, typer.Option(help="Architectures to draw from the table [200].")] = None,
    unique: Annotated[bool, typer.Option(help="Draw no two that are known to compute the same function.")] = False,
    data: Annotated[str | None, typer.Option(help="Images, as for nas score [digits].")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images that scores look at [64].")] = None,
    size: Size = None,
    seed: Seed = 0,
    repeats: Repeats = 1,
    limit_seconds: LimitSeconds = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for ranking.json, ranking.html and all values; goes on."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="HTML file for the table and the plots.")] = None,
    as_json: AsJson = False,
) -> None:
    """How well predictors rank: against a benchmark table, or against the networks that a run has trained."""
    from espalier.recipes.cli.console import announce, track
    from espalier.recipes.commands.rank.command import rank_run, rank_table, write_ranking
    from espalier.recipes.commands.rank.text import ranking_text

    drawn: dict[str, Any] = {"samples": 200 if samples is None else samples, "unique": unique, "seed": seed}
    how: dict[str, Any] = {"repeats": repeats, "limit_s": limit_seconds, "output": output, "track": track}
    if run is not None:
        own = {"--space": space, "--data": data, "--batch-size": batch_size, "--size": size}
        refuse(own, "goes without a run folder, which has its own")
        if table is None:
            refuse({"--target": target, "--samples": samples, "--unique": unique or None}, "goes with --table")
        elif target is None:
            raise UserError("--target", "is missing: a table and its column")
        ranking = rank_run(run, table=table, target=target, predictors=names(predictors), **drawn, **how)
    elif table is None or target is None:
        raise UserError(
            "--table" if table is None else "--target", "is missing: a table and its column, or a run folder"
        )
    else:
        ranking = rank_table(
            space=space or "nasbench201",
            table=table,
            target=target,
            predictors=names(predictors),
            data="digits" if data is None else data,
            batch_size=64 if batch_size is None else batch_size,
            size=size,
            **drawn,
            **how,
        )
    for path in write_ranking(ranking, folder=output, plot=plot):
        announce(f"wrote {path}")
    answer(ranking if as_json else ranking_text(ranking), as_json)


@app.command()
def ls(as_json: AsJson = False) -> None:
    """List everything that has a name: recipes, spaces, strategies, pruning methods, devices, ..."""
    from espalier.recipes.cli.console import waiting
    from espalier.recipes.config.registry import listing

    with waiting("looking"):
        names = listing()
    answer(names, as_json)


@app.command()
def devices(
    address: Annotated[
        str | None, typer.Argument(help="Ask this device: local, ssh://HOST, adb://SERIAL or replay:FILE.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the devices that latency can be measured on, or ask one what it is."""
    from espalier.recipes.cli.console import waiting
    from espalier.recipes.commands.devices import ask_device, devices_text, known_devices

    with waiting(f"asking {address or 'local'}"):
        found = known_devices() if address is None else [ask_device(address)]
    answer(found if as_json else devices_text(found), as_json)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check this machine, and name the cure of what is wrong. Exits with 1 if something is."""
    from espalier.recipes.cli.console import waiting
    from espalier.recipes.commands.doctor import examine

    with waiting("importing each library in a process of its own"):
        findings = examine()
    if as_json:
        answer([vars(finding) for finding in findings], as_json)
    else:
        for finding in findings:
            typer.echo(f"{finding.status:8} {finding.check}: {finding.detail}")
    if any(finding.status == "problem" for finding in findings):
        raise typer.Exit(1)


@recipes_app.command("copy")
def recipes_copy(
    name: Annotated[str, typer.Argument(help="A recipe that ships (see nas ls).")],
    folder: Annotated[Path, typer.Argument(help="Where to.")] = Path(),
) -> None:
    """Copy a recipe, and the schema that editors check it with, to edit it."""
    from espalier.recipes.config.recipe_library import copy_recipe

    typer.echo(copy_recipe(name, folder))


@recipes_app.command("schema")
def recipes_schema() -> None:
    """Print the JSON schema of recipes."""
    from espalier.recipes.config.json_schema import json_schema

    typer.echo(json_schema())


def main() -> None:
    """The entry point: a user's error is one line on standard error and exit code 2."""
    # OpenMP threads wait in a busy loop, by default so long that a small network trains 15 times slower as soon as
    # anything else wants the cores. This long costs a tenth on idle cores, and a factor of 4 on busy ones. Read once,
    # when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    keep_freed_memory()
    try:
        sys.exit(app(standalone_mode=False))
    except UserError as error:
        problem = str(error)
    except USAGE_ERROR as error:  # an unknown command or option, or one of the wrong type
        problem = error.format_message()
    except typer.Abort:
        sys.exit(130)
    if problem:  # there is none where help has just been printed
        typer.echo(f"error: {problem}", err=True)
    sys.exit(2)
