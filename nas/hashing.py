"""Hashes of files, and short keys of texts and JSON values."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

DIGITS = 12
"""Hexadecimal digits of a short hash: 48 bits, enough to tell everything apart that one run meets."""


def file_hash(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_hash(text: str) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def digest(value: Any) -> str:
    """The `short_hash` of a JSON value, whatever the order of its keys."""
    return short_hash(json.dumps(value, sort_keys=True))
