"""The command `nas score`."""

from __future__ import annotations

from typing import Annotated

import typer

from espalier.recipes.cli.options import (
    AsJson,
    BatchSize,
    Data,
    LimitSeconds,
    Repeats,
    Seed,
    Size,
    names,
    print_result,
)
from espalier.recipes.commands import defaults


def score(
    networks: Annotated[
        list[str],
        typer.Argument(
            help="timm:NAME, FILE.py:FUNCTION, or an architecture of the space, in its notation or as a JSON file."
        ),
    ],
    space: Annotated[
        str | None, typer.Option(help="Space of the architectures: NAME or NAME:key=value,... (see nas ls).")
    ] = None,
    scores: Annotated[str, typer.Option(help="Names separated by commas (see nas ls).")] = ",".join(defaults.SCORES),
    data: Data = defaults.DATA,
    batch_size: BatchSize = defaults.BATCH_SIZE,
    size: Size = None,
    seed: Seed = defaults.SEED,
    repeats: Repeats = defaults.REPEATS,
    limit_s: LimitSeconds = None,
    as_json: AsJson = False,
) -> None:
    """Compute zero-cost scores of networks with fresh weights: any model, or architectures of a space."""
    from espalier.recipes.commands.score import score as score_networks
    from espalier.recipes.commands.score import scores_text

    results = score_networks(
        networks,
        space=space,
        scores=names(scores),
        data=data,
        batch_size=batch_size,
        size=size,
        seed=seed,
        repeats=repeats,
        limit_s=limit_s,
    )
    print_result([result.to_dict() for result in results] if as_json else scores_text(results), as_json)
