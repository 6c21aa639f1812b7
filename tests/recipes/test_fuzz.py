"""Anything that a user, a tired one or a hostile one, can write: accepted, or refused in one line with exit code 2.

`pytest tests/recipes/test_fuzz.py -s` prints how many cases ended how. The cases are the same in every run; the marker
`slow` adds ten times as many.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nas_command import TINY

from espalier.nas.errors import UserError
from espalier.recipes.cli.app import app, main
from espalier.recipes.config.json_schema import json_schema
from espalier.recipes.config.loading import load_recipe

OUTCOMES: Counter[tuple[str, str]] = Counter()
BASE = yaml.safe_load(TINY)
SCHEMA = json.loads(json_schema())
LONGEST = 2000


def fuzz(cases: int) -> Any:
    """The same cases in every run, none of them kept in a database."""
    quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(max_examples=cases, derandomize=True, database=None, deadline=None, suppress_health_check=quiet)


@pytest.fixture(scope="module", autouse=True)
def _counts() -> Iterator[None]:
    yield
    for (what, outcome), count in sorted(OUTCOMES.items()):
        sys.stdout.write(f"{what}: {count} {outcome}\n")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def keys(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all keys of the recipe's schema, those of every alternative included."""
    if isinstance(schema, list):
        for inner in schema:
            yield from keys(inner, path)
    elif isinstance(schema, dict):
        if "$ref" in schema:
            yield from keys(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], path)
        for key, inner in schema.get("properties", {}).items():
            yield (*path, key)
            yield from keys(inner, (*path, key))
        for combined in ("anyOf", "oneOf", "allOf"):
            yield from keys(schema.get(combined, []), path)


KEYS = sorted(set(keys(SCHEMA)))
NUMBERS = st.sampled_from(
    [-1, 0, 1, 2, 3, 7, 0.5, 1.5, 10**6, 10**9, 2**63, 10**25, 10**400, 1e300, -1e300, 1e-300]
) | st.sampled_from([float("inf"), float("nan"), True, False])
WORDS = st.sampled_from(
    [
        "",
        " ",
        "yes",
        "1e-3",
        "010",
        "accuracy",
        "acuracy",
        "params <= 1",
        "params <= nan",
        "a/b.py:c",
        "a:b",
        "local",
        "../..",
        "~",
        "\u202e",
        "x" * 5000,
        "é",
        "nni:",
        "darts",
        "inherited+inherited",
        "%00",
        "{}",
        "*",
        "timm:x",
    ]
)
LEAVES = st.none() | NUMBERS | WORDS
VALUES = (
    LEAVES
    | st.lists(LEAVES, max_size=3)
    | st.dictionaries(st.sampled_from(["name", "full", "least", "model", "by", "cells", "options"]), LEAVES, max_size=3)
)
MUTATIONS = st.lists(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(["set", "set", "set", "drop", "misspell"]), VALUES),
    min_size=1,
    max_size=3,
)


def mutated(mutations: list[tuple[tuple[str, ...], str, Any]]) -> dict[str, Any]:
    """A valid recipe after some mistakes."""
    recipe = copy.deepcopy(BASE)
    for path, what, value in mutations:
        place = recipe
        for part in path[:-1]:
            inner = place.get(part)
            place[part] = inner if isinstance(inner, dict) else {}
            place = place[part]
        if what == "set":
            place[path[-1]] = value
        elif what == "drop":
            place.pop(path[-1], None)
        else:
            place[path[-1][:-1] + "x"] = value
    return recipe


def outcome(*arguments: str) -> str:
    """How a command ends: nothing but acceptance, or one short line and exit code 2."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["nas", *arguments])
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    assert "Traceback" not in err.getvalue()
    if code == 0:
        return "accepted"
    assert code == 2, (code, arguments)
    last = err.getvalue().splitlines()[-1] if err.getvalue() else ""
    assert len(last) < LONGEST, last
    assert last.startswith("error: ") or "Usage" in out.getvalue() + err.getvalue(), last
    last.encode()
    return "refused"


def refused_or(what: str, function: Any, *arguments: Any) -> None:
    """Count how a reader ends: it reads, or raises a `UserError` of one short line."""
    try:
        function(*arguments)
    except UserError as error:
        line = str(error)
        assert len(line) < LONGEST
        assert len(line.splitlines()) == 1
        OUTCOMES[what, "refused"] += 1
    else:
        OUTCOMES[what, "accepted"] += 1


def dry_run(mutations: list[tuple[tuple[str, ...], str, Any]]) -> None:
    """What is accepted by its keys is checked whole, by a dry run."""
    Path("mutated.yaml").write_text(yaml.safe_dump(mutated(mutations), allow_unicode=True))
    OUTCOMES["recipes", outcome("run", "mutated.yaml", "--dry-run")] += 1


@fuzz(110)
@given(MUTATIONS)
@example([(("seed",), "set", 10**400)])
@example([(("supernet", "weight_decay"), "set", 1e300)])
@example([(("supernet", "warmup_epochs"), "set", 11.999)])
@example([(("space", "options"), "set", {"name": 1})])
def test_recipes(mutations: list[tuple[tuple[str, ...], str, Any]]) -> None:
    dry_run(mutations)


@pytest.mark.slow
@fuzz(1500)
@given(MUTATIONS)
def test_many_recipes(mutations: list[tuple[tuple[str, ...], str, Any]]) -> None:
    dry_run(mutations)


@fuzz(40)
@given(st.lists(st.tuples(st.integers(0, len(TINY)), st.sampled_from("{}[]:,&*!|>%@`'\"\n\t#- \x00é<~")), max_size=6))
def test_texts_of_recipes(changes: list[tuple[int, str]]) -> None:
    text = TINY
    for place, letter in changes:
        text = text[:place] + letter + text[place:]
    Path("text.yaml").write_text(text)
    refused_or("texts", load_recipe, "text.yaml")


@fuzz(40)
@given(st.sampled_from(KEYS), st.text(max_size=20) | VALUES.map(str))
def test_overrides(path: tuple[str, ...], text: str) -> None:
    refused_or("overrides", load_recipe, BASE, [f"{'.'.join(path)}={text}"])


COMMANDS = {
    "run": ["--dry-run"],
    "prune": ["--dry-run"],
    "quantize": [],
    "profile": [],
    "rank": [],
    "score": [],
    "report": [],
    "devices": [],
    "lut build": ["--list"],
    "lut check": [],
    "recipes copy": [],
}
"""With what keeps each from working for long."""
TEXTS = st.sampled_from(
    [
        "",
        "-1",
        "0",
        "1",
        "1e999",
        "inf",
        "nan",
        "9" * 30,
        "x",
        "x" * 5000,
        "no.onnx",
        "a=b",
        "=",
        ".",
        "..",
        "no/no.py:f",
        "timm:nothing",
        "caf�",
        "\x00",
        "replay:no.json",
        "darts:cells=1e9",
        "sparsity=nan",
        "macs=0",
        "2:0",
        "{}",
    ]
)


def options_of(command: str) -> list[str]:
    """The options of a command that take a value."""
    import typer.main

    found: Any = typer.main.get_command(app)
    for part in command.split():
        found = found.commands[part]
    return [max(one.opts, key=len) for one in found.params if one.param_type_name == "option" and not one.is_flag]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    command = draw(st.sampled_from(sorted(COMMANDS)))
    line = [*command.split(), *COMMANDS[command], *draw(st.lists(TEXTS, max_size=2))]
    options = options_of(command)
    for option in draw(st.lists(st.sampled_from(options), max_size=3, unique=True)) if options else []:
        line += [option, draw(TEXTS)]
    return line


@fuzz(70)
@given(command_lines())
@example(["prune", "timm:resnet18", "--pattern", "2:0"])
@example(["profile", "no.onnx", "--seconds", "inf"])
@example(["score", "x" * 5000])
def test_command_lines(line: list[str]) -> None:
    OUTCOMES["command lines", outcome(*line)] += 1


@pytest.mark.slow
@fuzz(1000)
@given(command_lines())
def test_many_command_lines(line: list[str]) -> None:
    OUTCOMES["command lines", outcome(*line)] += 1
