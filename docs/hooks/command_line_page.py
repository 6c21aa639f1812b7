"""The reference page of the command line, generated from its typer application."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from tables import cell, table

HEAD = """\
# Command line

Generated from the command line itself. `nas COMMAND --help` prints the same.

Every command that returns data takes `--json`. Invalid input is reported in one line that starts with the offending
option, key or file. Exit codes: 0 success, 1 `nas doctor` found a problem, 2 invalid input or no result within the
limits, 130 interrupted.
"""


def command_line_page() -> str:
    """The page as Markdown."""
    import typer

    from espalier.recipes.cli.app import app

    return "\n".join([HEAD, *_sections(typer.main.get_command(app), "nas")])


def _sections(command: Any, path: str) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield f"## {path}\n"
        yield f"{(command.help or '').strip()}\n"
        yield f"```text\n{' '.join([path, *_usage(command)])}\n```\n"
        yield _parameters(command)
        return
    for name in sorted(inner):
        yield from _sections(inner[name], f"{path} {name}")


def _usage(command: Any) -> Iterator[str]:
    yield "[OPTIONS]"
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = (parameter.metavar or parameter.name).strip("[]").upper() + ("..." if parameter.nargs == -1 else "")
            yield name if parameter.required else f"[{name}]"


def _parameters(command: Any) -> str:
    rows = [
        (_names(parameter), cell(parameter.help or ""), _default(parameter))
        for parameter in command.params
        if not getattr(parameter, "hidden", False) and parameter.name != "help"
    ]
    return table(("argument or option", "meaning", "default"), rows)


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.name.upper()}`"
    value = "" if getattr(parameter, "is_flag", False) else f" {parameter.metavar or _value(parameter)}"
    return ", ".join(f"`{name}{value}`" for name in (*parameter.opts, *parameter.secondary_opts))


def _value(parameter: Any) -> str:
    """What stands for the value of an option; older typer knows a click type, newer an annotation."""
    if hasattr(parameter, "type"):
        return str(parameter.type.name).upper()
    annotation = parameter.type_descriptor.annotation
    inner = (get_args(annotation) or (annotation,))[0]
    return {"str": "TEXT", "int": "INTEGER", "float": "FLOAT"}.get(inner.__name__, inner.__name__.upper())


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    if value is None or value is False or callable(value) or value == []:
        return ""
    return f"`{value}`"
