"""An architecture: an immutable value `{choice name: option}` with a canonical form and a short id."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.hashing import short_hash

Option = str | int | float | bool | tuple[int, ...]
"""One option of a choice: the name of an operation, a width or kernel size, or the indices of the chosen inputs."""


class Architecture(Mapping[str, Option]):
    """One point of a search space. Its canonical JSON decides equality, hash and id.

    Args:
        options: an option for each choice, by name.

    >>> a = Architecture({"edge_1_0": "skip_connect"})
    >>> a.id == Architecture.from_json(a.to_json()).id
    True
    """

    def __init__(self, options: Mapping[str, Option]) -> None:
        self._options = {name: _as_option(name, options[name]) for name in sorted(options)}

    def __getitem__(self, name: str) -> Option:
        return self._options[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._options)

    def __len__(self) -> int:
        return len(self._options)

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Architecture) and self.to_json() == other.to_json()

    def __repr__(self) -> str:
        return f"Architecture({self.to_json()})"

    @cached_property
    def id(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return short_hash(self.to_json())

    def to_json(self) -> str:
        """Canonical JSON: keys sorted, no spaces, so that equal architectures give equal bytes."""
        return json.dumps(self._options, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str, *, where: str = "architecture") -> Architecture:
        """The architecture that `to_json` wrote.

        Args:
            text: JSON.
            where: the source of the text, for messages.

        Raises:
            UserError: not JSON, not an object, or an option of another type.
        """
        try:
            value = json.loads(text)
        except ValueError as error:
            raise UserError(where, f"not valid JSON ({error})") from error
        if not isinstance(value, dict):
            raise UserError(where, f"an architecture must be a JSON object, not {type(value).__name__}")
        return cls(value)

    def replace(self, name: str, option: Option) -> Architecture:
        """A copy with another option for one choice.

        Raises:
            UserError: there is no such choice.
        """
        if name not in self._options:
            raise UserError(name, "no such choice in the architecture", allowed=self, given=name)
        return Architecture({**self._options, name: option})


def _as_option(name: str, value: Any) -> Option:
    if isinstance(value, list | tuple) and all(type(index) is int for index in value):
        return tuple(value)
    if isinstance(value, str | int | float):
        return value
    raise UserError(name, f"an option must be a string, a number or a list of integers, not {type(value).__name__}")
