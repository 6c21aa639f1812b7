"""What the commands of `nas` share: options of one meaning, how errors name them, and how a result is printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stdout
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from typer.core import TyperArgument, TyperCommand

from espalier.nas.errors import UserError
from espalier.nas.files import check_writable_place
from espalier.nas.limits import limit_of

if TYPE_CHECKING:
    from espalier.nas.network_inputs import Input

Data = Annotated[
    str,
    typer.Option(
        help="Images: digits, a .parquet or .npz file, or a folder of parquet files or with a folder for each class."
    ),
]
TestData = Annotated[Path | None, typer.Option(help="Test images, if --data does not contain them.")]
BatchSize = Annotated[int, typer.Option(help="Number of images that scores are computed on.")]
Size = Annotated[int | None, typer.Option(help="Resize the images to SIZE x SIZE.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Repeats = Annotated[int, typer.Option(help="Initialisations to average over.")]
LimitSeconds = Annotated[
    float | None, typer.Option("--limit-seconds", help="Time limit per score and network, in seconds.")
]
Weights = Annotated[Path | None, typer.Option(help="Weights of the network: .safetensors, .npz, .pt or .pth.")]
Pretrained = Annotated[bool, typer.Option("--pretrained", help="Use timm's pretrained weights.")]
Threads = Annotated[int | None, typer.Option(help="Threads of ONNX Runtime [one per physical core].")]
Dim = Annotated[
    list[str] | None,
    typer.Option(help="NAME=SIZE of an input's open dimension besides the batch, such as sequence=128; repeatable."),
]
InputShape = Annotated[
    str | None, typer.Option(help="Shape of the network's only input without the batch, such as 1x16000.")
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", help="NAME:SHAPE:TYPE of an input, such as ids:128:int64; repeatable."),
]
Device = Annotated[str, typer.Option(help="Device to run on (see nas ls).")]


def output_folder(path: Path | None) -> Path | None:
    """The value of `--output` for a command that writes a folder, checked before any work."""
    if path is not None:
        check_writable_place(path, where="--output", folder=True)
    return path


def output_file(path: Path | None) -> Path | None:
    """The value of `--output` for a command that writes a file, checked before any work."""
    if path is not None:
        check_writable_place(path, where="--output", folder=False)
    return path


Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="Folder to write; new or empty.", callback=output_folder)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


RESULTS: ContextVar[TextIO] = ContextVar("RESULTS")
"""The stream that JSON is printed to."""


class Command(TyperCommand):
    """A command that names its options in errors as they are typed: `--batch-size` instead of `batch_size`."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. With `--json`, what code of the user's prints goes to standard error."""
        RESULTS.set(sys.stdout)
        apart = redirect_stdout(sys.stderr) if ctx.params.get("as_json") else nullcontext()
        try:
            check_numbers(ctx.params)
            with apart:
                return super().invoke(ctx)
        except UserError as error:
            raise self._as_typed(error) from error

    def _as_typed(self, error: UserError) -> UserError:
        name, dot, rest = error.where.partition(".")
        parameters = {parameter.name: parameter for parameter in self.params}
        parameter = parameters.get(name)
        # `data.path` is a key of the settings where settings are given by key=value.
        if parameter is None or (dot and "overrides" in parameters):
            return error
        typed = str(name).upper() if isinstance(parameter, TyperArgument) else max(parameter.opts, key=len)
        return error.at(f"{typed}{dot}{rest}")


def check_numbers(options: Mapping[str, Any]) -> None:
    """Check that the numbers of a command line are finite, and within `espalier.nas.limits`.

    Args:
        options: the values of the options, by the names of the parameters.

    Raises:
        UserError: one is not.
    """
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        limit = limit_of(name, whole=isinstance(value, int))
        if not abs(value) <= limit.most:
            problem = f"must be at most {limit.most:,} ({limit.reason}), not {value}"
            raise UserError(name, problem, code="out_of_range")


def names(text: str) -> list[str]:
    """The names in a list separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def whole_numbers(where: str, text: str) -> list[int]:
    """The whole numbers in a list separated by commas.

    Args:
        where: the parameter that holds the list.
        text: the list.

    Raises:
        UserError: it is empty, or contains something else.
    """
    try:
        numbers = [int(name) for name in names(text)]
    except ValueError:
        numbers = []
    if not numbers:
        raise UserError(where, f"{text!r} is not a whole number, nor several separated by commas")
    for number in numbers:
        check_numbers({where: number})
    return numbers


def network_inputs(input_shape: str | None, inputs: list[str] | None) -> tuple[Input, ...] | None:
    """The inputs of a network that takes no images; None if neither option is given.

    Raises:
        UserError: both options, another form, or a name given twice.
    """
    from espalier.nas.network_inputs import as_inputs, parse_input, parse_shape

    if input_shape is not None and inputs:
        raise UserError("input_shape", "cannot be combined with --input, which has its own shapes", code="conflict")
    if input_shape is not None:
        return as_inputs(parse_shape(input_shape))
    found = tuple(parse_input(text) for text in inputs or ())
    names = [one.name for one in found]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UserError("inputs", f"gives {repeated} twice", code="conflict")
    return found or None


def required_output(output: Path | None, what: str) -> Path:
    """The value of `--output`.

    Raises:
        UserError: it is missing.
    """
    if output is None:
        raise UserError("output", f"is required: {what}", code="missing")
    return output


def print_result(value: Any, as_json: bool) -> None:
    """Print a result: as JSON, text as it is, or a mapping with one line per key."""
    if as_json:
        typer.echo(json.dumps(value, indent=2, default=str), file=RESULTS.get())
    elif isinstance(value, str):
        typer.echo(value)
    else:
        for key, inner in value.items():
            typer.echo(f"{key}: {', '.join(map(str, inner)) if isinstance(inner, list) else inner}")


def settings_of(overrides: list[str] | None) -> Mapping[str, Any]:
    """The settings `key=value` of a command line, each value read as YAML.

    Raises:
        UserError: one of another form.
    """
    from espalier.recipes.config.loading import parse_override

    return dict(map(parse_override, overrides or []))
