from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.nas.architecture import Architecture
from user_errors import user_error

OPTIONS = st.one_of(
    st.text(max_size=8),
    st.integers(-99, 99),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.lists(st.integers(0, 9), max_size=3).map(tuple),
)
ARCHITECTURES = st.dictionaries(st.text(min_size=1, max_size=6), OPTIONS, max_size=6)


@given(ARCHITECTURES)
def test_json_gives_the_same_architecture_back(options: dict) -> None:
    architecture = Architecture(options)
    again = Architecture.from_json(architecture.to_json())
    assert again == architecture
    assert again.id == architecture.id
    assert hash(again) == hash(architecture)


@given(ARCHITECTURES, st.randoms())
def test_the_order_of_the_choices_does_not_matter(options: dict, random: object) -> None:
    items = list(options.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert Architecture(dict(items)).to_json() == Architecture(options).to_json()


def test_canonical_json_and_id() -> None:
    architecture = Architecture({"b": (2, 0), "a": "conv"})
    assert architecture.to_json() == '{"a":"conv","b":[2,0]}'
    assert architecture.id == hashlib.sha256(b'{"a":"conv","b":[2,0]}').hexdigest()[:12]


def test_options_of_different_types_are_different() -> None:
    assert Architecture({"a": 1}) != Architecture({"a": "1"})
    assert Architecture({"a": 1}).id != Architecture({"a": True}).id


def test_replace_leaves_the_original() -> None:
    architecture = Architecture({"a": 1, "b": 2})
    assert architecture.replace("a", 3) == Architecture({"a": 3, "b": 2})
    assert architecture["a"] == 1
    with user_error("bb", "unknown", nearest="b"):
        Architecture({"b1": 1, "b": 2}).replace("bb", 1)


@pytest.mark.parametrize(
    ("text", "where"),
    [("", "here"), ("[1]", "here"), ('{"a": null}', "a"), ('{"a": {"b": 1}}', "a"), ('{"a": [1.5]}', "a")],
)
def test_what_is_no_architecture_is_refused(text: str, where: str) -> None:
    with user_error(where, "invalid"):
        Architecture.from_json(text, where="here")
