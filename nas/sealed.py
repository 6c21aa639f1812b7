"""JSON documents with a checksum of their content: one that was edited or damaged is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espalier.nas.errors import UserError
from espalier.nas.files import read_json

SEAL = "sha256"
"""The key of the checksum."""


def seal(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with the checksum of its other keys.

    Args:
        document: plain JSON types.
    """
    return {**document, SEAL: _checksum(document)}


def unseal(value: Any, where: str, cure: str) -> dict[str, Any]:
    """What `seal` was given.

    Args:
        value: what was read.
        where: the file, for the error.
        cure: what to do about a damaged one, in one clause.

    Raises:
        UserError: it is no such document, or its checksum is another.
    """
    if not isinstance(value, dict) or SEAL not in value:
        raise UserError(where, f"has no checksum, so nothing here wrote it; {cure}", code="unreadable")
    document = {key: inner for key, inner in value.items() if key != SEAL}
    if value[SEAL] != _checksum(document):
        raise UserError(where, f"was edited or damaged: its checksum is another; {cure}", code="unreadable")
    return document


def read_sealed(path: Path, cure: str) -> dict[str, Any]:
    """The document in a file, without its checksum; see `unseal`."""
    return unseal(read_json(path), str(path), cure)


def _checksum(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
