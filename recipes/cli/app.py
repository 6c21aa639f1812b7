"""The command line `nas`. Heavy imports happen inside the commands, so that help is quick."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import Annotated, Any

import typer

from espalier.nas.errors import UserError, printable, shortened
from espalier.nas.limits import MESSAGE
from espalier.nas.memory import keep_freed_memory
from espalier.recipes.cli.devices import devices, doctor
from espalier.recipes.cli.listing import ls, recipes_app
from espalier.recipes.cli.lut import lut_app
from espalier.recipes.cli.options import Command
from espalier.recipes.cli.profile import profile
from espalier.recipes.cli.prune import prune
from espalier.recipes.cli.quantize import quantize
from espalier.recipes.cli.rank import rank
from espalier.recipes.cli.run import report, run
from espalier.recipes.cli.score import score

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # the other markup swallows what is in brackets
)
for command in (run, report, score, rank, profile, prune, quantize, ls, devices, doctor):
    app.command(cls=Command)(command)
app.add_typer(lut_app, name="lut")
app.add_typer(recipes_app, name="recipes")

USAGE_ERROR: type[Any] = typer.BadParameter.__mro__[1]
"""The base of all errors of the command line's parser."""


def _version(asked: bool) -> None:
    if asked:
        from espalier import __version__

        typer.echo(f"espalier-nas {__version__}")
        raise typer.Exit


@app.callback()
def nas(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    wait: Annotated[
        float | None,
        typer.Option(min=0, max=86400, help="Seconds to wait while others are timing on the device [600]."),
    ] = None,
) -> None:
    """Find and shrink neural networks for real hardware."""
    if wait is not None:
        os.environ["ESPALIER_WAIT_S"] = str(wait)


class StandardError(logging.Handler):
    """Writes log lines to standard error as it is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        typer.echo(self.format(record), err=True)


def _ended(error: SystemExit) -> tuple[str, str]:
    """Where code of the user's ended the command, and how."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}, line {frame.lineno}", f"ended the command by SystemExit({error.code!r})"


def main() -> None:
    """The entry point: a user's error is one line on standard error and exit code 2."""
    # OpenMP threads wait in a busy loop, by default so long that a small network trains 15 times slower as soon as
    # anything else wants the cores. This long costs a tenth on idle cores, and a factor of 4 on busy ones. Read once,
    # when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    keep_freed_memory()
    logger = logging.getLogger("espalier")
    if not any(isinstance(handler, StandardError) for handler in logger.handlers):
        logger.addHandler(StandardError())
        logger.setLevel(logging.INFO)
    try:
        code = app(standalone_mode=False)
    except UserError as error:
        problem = str(error)
    except SystemExit as error:  # only code of the user's: commands return
        problem = str(UserError(*_ended(error), code="user_code"))
    except USAGE_ERROR as error:  # an unknown command or option, or one of the wrong type
        problem = printable(shortened(" ".join(error.format_message().split()), MESSAGE))
    except OSError as error:
        if error.filename is None:  # nobody's file
            raise
        problem = str(UserError(os.fsdecode(error.filename), error.strerror or str(error)))
    except MemoryError as error:
        problem = str(UserError("memory", f"there is not enough for this{f' ({error})' if str(error) else ''}"))
    except typer.Abort:
        sys.exit(130)
    else:
        sys.exit(code)
    if problem:  # there is none where help has just been printed
        typer.echo(f"error: {problem}", err=True)
    sys.exit(2)
