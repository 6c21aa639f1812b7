"""The tables of `docs/reference/json.md` as JSON Schema."""

from __future__ import annotations

import re
from typing import Any

LINK = re.compile(r"\]\(schemas/([\w-]+)\.json\)")
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+?) \|")
TYPES = {"text": "string", "true": "boolean", "false": "boolean"} | {
    name: name for name in ("integer", "number", "null")
}


def tables(page: str) -> dict[str, dict[str, str]]:
    """Path to type, for each schema that the page links to; the rows are those after the link."""
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in page.splitlines():
        if link := LINK.search(line):
            current = found.setdefault(link[1], {})
        elif row := ROW.match(line):
            current[row[1]] = row[2]
    return found


def schema_of(rows: dict[str, str]) -> dict[str, Any]:
    """The schema of the documents that have these paths."""
    root: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    for path, kind in rows.items():
        place = root
        for name in re.findall(r"\[\]|\*|[^.\[\]*]+", path):
            place = _inner(place, name, required="optional" not in kind)
        place |= _type(kind.removesuffix(", optional"))
    return root


def _inner(place: dict[str, Any], name: str, *, required: bool) -> Any:
    """The schema of the items of a list, of any key, or of one key."""
    if name == "[]":
        place["type"] = "array"
        return place.setdefault("items", {})
    place["type"] = "object"
    if name == "*":
        return place.setdefault("additionalProperties", {})
    if required and name not in place.setdefault("required", []):
        place["required"].append(name)
    return place.setdefault("properties", {}).setdefault(name, {})


def _type(kind: str) -> dict[str, Any]:
    types = list(dict.fromkeys(TYPES[word] for word in kind.split(" or ") if word != "any"))
    if not types:
        return {}
    return {"type": types[0] if len(types) == 1 else types}
