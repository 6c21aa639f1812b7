"""How recipes are read: YAML 1.2, exact types, numbers within limits, and one line about everything else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from espalier.nas.errors import UserError
from espalier.nas.limits import FILE_BYTES, LIMITS, TEXT, YAML_VALUES
from espalier.recipes.config.loading import format_override, load_recipe, parse_override
from espalier.recipes.config.yaml_text import dump_yaml, parse_yaml
from user_errors import user_error


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("+12", 12),
        ("0x1F", 31),
        ("0o17", 15),
        ("0", 0),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2026-99-99", "2026-99-99"),
        ("2026-01-02", "2026-01-02"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("True", True),
        ("~", None),
        ("", None),
        ("a: &x {b: 1}\nc: *x\n", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\n", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse_yaml(text, where="file.yaml")
    assert found == value
    assert type(found) is type(value)


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
)


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        pytest.param("a: 1\nb: 2\na: 3\n", "conflict", ["'a'", "line 1", "line 3"], id="a key twice"),
        pytest.param("a: {b: 1,\n  b: 2}", "conflict", ["'b'", "line 1", "line 2"], id="an inner key twice"),
        pytest.param("010", "invalid", ["'010'", "10"], id="leading zero"),
        pytest.param("-007", "invalid", ["7"], id="leading zeros"),
        pytest.param("1" + "0" * 5000, "out_of_range", ["5,001"], id="digits"),
        pytest.param("&a [*a]", "out_of_range", ["itself"], id="an alias in itself"),
        pytest.param("&a {b: *a}", "out_of_range", ["itself"], id="a mapping in itself"),
        pytest.param(BOMB, "out_of_range", [f"{YAML_VALUES:,}"], id="alias bomb"),
        pytest.param("[" * 60 + "]" * 60, "out_of_range", ["50"], id="depth"),
        pytest.param("[" * 5000, "out_of_range", ["50"], id="depth of the parser"),
        pytest.param("x" * (TEXT + 1), "out_of_range", [f"{TEXT:,}"], id="long text"),
        pytest.param("!!python/object/apply:os.system [ls]", "invalid", ["python"], id="a tag that runs"),
        pytest.param("!!timestamp 2026-99-99", "invalid", ["timestamp"], id="a tag of 1.1"),
        pytest.param("!!int x", "invalid", ["x"], id="a tag that does not fit"),
        pytest.param("!!set {a, b}", "invalid", ["set"], id="a set"),
        pytest.param("1: 2", "invalid", ["1"], id="a number as a key"),
        pytest.param("true: 2", "invalid", ["true"], id="a boolean as a key"),
        pytest.param("[a]: 2", "invalid", [], id="a list as a key"),
        pytest.param("<<: 3", "invalid", ["<<"], id="merging a number"),
        pytest.param("*unknown", "unreadable", ["unknown"], id="unknown alias"),
        pytest.param("a: [1, 2", "unreadable", [], id="open bracket"),
        pytest.param("a\x00b", "unreadable", [], id="a zero byte"),
        pytest.param("--- 1\n--- 2\n", "unreadable", [], id="two documents"),
        pytest.param("%YAML 9.9\n--- 1", "unreadable", [], id="another YAML"),
    ],
)
def test_anything_else_is_refused_in_one_line(text: str, code: str, says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_yaml(text, where="file.yaml")
    line = str(caught.value)
    assert (caught.value.where, caught.value.code) == ("file.yaml", code)
    assert len(line) < 2000
    assert "\n" not in line
    assert all(word in line for word in says), line


TEXTS = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=8,
    )
)
@example("1e-3")
@example("010")
@example("yes")
@example("<<")
@example("1:30")
@example("2026-01-02")
@example({"<<": 1})
def test_what_is_written_is_read_back(value: Any) -> None:
    assert parse_yaml(dump_yaml(value), where="file.yaml") == value
    assert parse_override(format_override("a.b", value)) == ("a.b", value)


@pytest.mark.parametrize(
    ("override", "code", "nearest"),
    [
        ("seed=true", "invalid", None),
        ("seed='3'", "invalid", None),
        ("seed=1.5", "invalid", None),
        ("seed=010", "invalid", None),
        ("seed=-1", "out_of_range", None),
        ("profile.threads=true", "invalid", None),
        ("profile.threads=1:30", "invalid", None),
        ("supernet.lr=yes", "invalid", None),
        ("supernet.lr=.nan", "out_of_range", None),
        ("supernet.lr=.inf", "out_of_range", None),
        ("supernet.weight_decay=1e300", "out_of_range", None),
        ("supernet.augment.flip=yes", "invalid", "true"),
        ("supernet.augment.flip=off", "invalid", "false"),
        ("supernet.augment.flip=1", "invalid", "true"),
        ("space.affine=0", "invalid", "false"),
        ("space.cells=1000000", "out_of_range", None),
        ("space.channels=1000000", "out_of_range", None),
        ("space.channels={full: 1, least: 1e25}", "invalid", None),
        ("search.trials=1e23", "out_of_range", None),
        ("search.trials={full: .inf, least: 1}", "invalid", None),
        ("profile.sessions=100000000000000000000000", "out_of_range", None),
    ],
)
def test_values_are_what_they_say_and_within_limits(override: str, code: str, nearest: str | None) -> None:
    with user_error(override.partition("=")[0], code, nearest=nearest):
        load_recipe("quickstart", ["supernet={strategy: spos, epochs: 40}", override])


def test_a_whole_number_may_be_written_with_an_exponent() -> None:
    recipe = load_recipe("quickstart", ["search.trials=1e2"])
    assert recipe.search is not None
    assert recipe.search.trials == 100


def test_every_limit_says_why() -> None:
    assert all(limit.most > 0 and limit.reason for limit in LIMITS.values())


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(b"name: \xff\xfe", "unreadable", id="not UTF-8"),
        pytest.param(b"#" * (FILE_BYTES + 1), "out_of_range", id="too large"),
        pytest.param(b"", "invalid", id="empty"),
        pytest.param(b"- 1\n", "invalid", id="a list"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, content: bytes, code: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_recipe(file)
    assert caught.value.where == str(file)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 300 + ".yaml", "a\x00b", "\udcff.yaml"])
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(name)
    line = str(caught.value)
    assert len(line) < 2000
    line.encode()


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9.yaml")
    folder.mkdir()
    with pytest.raises(UserError):
        load_recipe(folder)


def test_pyyaml_reads_what_is_written_as_the_same_texts() -> None:
    texts = ["yes", "on", "010", "1:30", "1e-3", "0o7", "null", "2026-01-02"]
    assert yaml.safe_load(dump_yaml(texts)) == texts


def test_the_page_about_limits_has_all_of_them() -> None:
    page = (Path(__file__).parents[2] / "docs" / "trust" / "limits.md").read_text()
    rows = {row.split(" | ")[0]: row for row in page.splitlines() if row.startswith("| `")}
    for name, limit in LIMITS.items():
        row = next(row for keys, row in rows.items() if f"`{name}`" in keys)
        assert limit.reason in row
        assert f"{limit.most:,}" in row or "2<sup>63</sup>" in row
