"""What the commands of `nas` share: options of one meaning, and how a result is printed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from espalier.nas.errors import UserError

Data = Annotated[
    str,
    typer.Option(
        help="Images: digits, a file .parquet or .npz, or a folder (of parquet files, or one for each class)."
    ),
]
BatchSize = Annotated[int, typer.Option(help="Images that scores look at.")]
Size = Annotated[int | None, typer.Option(help="Resize the images to SIZE x SIZE.")]
Seed = Annotated[int, typer.Option(help="Of everything that is drawn at random.")]
Repeats = Annotated[int, typer.Option(help="Initialisations to average over.")]
LimitSeconds = Annotated[
    float | None, typer.Option("--limit-seconds", help="Give a score of a network up after this long.")
]
Threads = Annotated[int | None, typer.Option(help="Threads of the runtime [one for each physical core].")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def names(text: str) -> list[str]:
    """The names in a list joined by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def whole_numbers(option: str, text: str) -> list[int]:
    """The whole numbers in a list joined by commas.

    Raises:
        UserError: there is none, or something else is among them; `option` is where.
    """
    try:
        numbers = [int(name) for name in names(text)]
    except ValueError:
        numbers = []
    if not numbers:
        raise UserError(option, f"{text!r} is no whole number, nor several joined by commas")
    return numbers


def refuse(options: Mapping[str, object], problem: str) -> None:
    """Raises UserError for the first of the options that is given."""
    for name, value in options.items():
        if value is not None:
            raise UserError(name, problem)


def answer(value: Any, as_json: bool) -> None:
    """Print a result: JSON, text as it is, or a mapping a line each."""
    if as_json:
        typer.echo(json.dumps(value, indent=2, default=str))
    elif isinstance(value, str):
        typer.echo(value)
    else:
        for key, inner in value.items():
            typer.echo(f"{key}: {', '.join(map(str, inner)) if isinstance(inner, list) else inner}")
