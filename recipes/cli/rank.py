"""The command `nas rank`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from espalier.recipes.cli.options import AsJson, LimitSeconds, Repeats, Seed, Size, names, output_folder, print_result
from espalier.recipes.commands import defaults


def rank(
    run: Annotated[
        Path | None,
        typer.Argument(help="A run folder: use its supernet, space and images; without --table rank its networks."),
    ] = None,
    space: Annotated[
        str | None, typer.Option(help=f"NAME or NAME:key=value,... (see nas ls) [{defaults.SPACE}].")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="CSV file, gzipped or not, with a column arch.")] = None,
    target: Annotated[str | None, typer.Option(help="Column with the ground-truth metric; higher is better.")] = None,
    predictors: Annotated[
        str, typer.Option(help="Names separated by commas (see nas ls); a+b is the rank ensemble of a and b.")
    ] = ",".join(defaults.SCORES),
    samples: Annotated[
        int | None, typer.Option(help=f"Architectures to draw from the table [{defaults.SAMPLES}].")
    ] = None,
    unique: Annotated[
        bool, typer.Option("--unique", help="Draw no two that are known to compute the same function.")
    ] = False,
    data: Annotated[str | None, typer.Option(help=f"Images, as for nas score [{defaults.DATA}].")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help=f"Number of images that scores are computed on [{defaults.BATCH_SIZE}].")
    ] = None,
    size: Size = None,
    seed: Seed = defaults.SEED,
    repeats: Repeats = defaults.REPEATS,
    limit_s: LimitSeconds = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Folder for ranking.json, ranking.html and all values; existing values are reused.",
            callback=output_folder,
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="HTML file for the table and the plots.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how well predictors rank: against a benchmark table, or against the networks that a run trained."""
    from espalier.recipes.commands.rank.command import rank as rank_predictors
    from espalier.recipes.commands.rank.text import ranking_text

    ranking = rank_predictors(
        run,
        space=space,
        table=table,
        target=target,
        predictors=names(predictors),
        samples=samples,
        unique=unique,
        data=data,
        batch_size=batch_size,
        size=size,
        seed=seed,
        repeats=repeats,
        limit_s=limit_s,
        output=output,
        plot=plot,
    )
    print_result(ranking.to_dict() if as_json else ranking_text(ranking), as_json)
